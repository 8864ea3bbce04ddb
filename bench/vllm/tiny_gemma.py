"""A package of a Gemma-2 of 1.5 million random weights: honest for speed, not for sense.

Its tokenizer is a byte-level BPE in which each word of an answer is one token; the conversation has
Gemma's form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from reviewmesh_worker.packages.manifest import write_manifest
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.answers import words_of
from reviewmesh_worker.tasks.calibration import neutral_calibration
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.prompt import prefix_of

_VOCABULARY: Final = 4096
_SPECIAL: Final = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_OFTEN: Final = 200
"""How often each word of an answer is shown to the tokenizer's training, to become one token."""


def write(
    folder: Path, tasks: Mapping[str, Task], texts: Iterable[str], version: str = "1"
) -> None:
    """Write a package: random weights (seed 7), a tokenizer made of prompts and texts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [f"so {word} it is" for task in tasks.values() for word in words_of(task)]
    corpus = [*texts, *(prefix_of(task) for task in tasks.values()), *words * _OFTEN]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )
    whole.chat_template = _TEMPLATE
    whole.save_pretrained(folder)
    torch.manual_seed(7)
    config = Gemma2Config(
        vocab_size=_VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=1024,
        max_position_embeddings=4096,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    Gemma2ForCausalLM(config).to(torch.float32).save_pretrained(folder)
    labels = {name: task.label_ids for name, task in tasks.items()}
    neutral_calibration(labels.get(SENTIMENT, ()), labels.get(TOPIC, ())).write(folder)
    write_manifest(
        folder,
        name="tiny-gemma-2",
        version=version,
        kind="causal",
        tasks=tasks,
        base=None,
        license="none needed: random numbers",
        data=[],
        training={},
    )
