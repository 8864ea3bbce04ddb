"""What every package of a Gemma-2 that nobody trained has: a tokenizer, a calibration, a manifest.

The tokenizer is a byte-level BPE in which each word of an answer is one token; the conversation has
Gemma's form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from reviewmesh_worker.packages.manifest import write_manifest
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.answers import words_of
from reviewmesh_worker.tasks.calibration import neutral_chat_calibration
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.prompt import prefix_of

VOCABULARY: Final = 4096
"""Tokens of the tokenizer; a model may have room for more."""
SPECIAL_IDS: Final = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
_SPECIAL: Final = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_OFTEN: Final = 200
"""How often each word of an answer is shown to the tokenizer's training, to become one token."""


def write_tokenizer(
    folder: Path, tasks: Mapping[str, Task], texts: Iterable[str], without: str = ""
) -> None:
    """Write a tokenizer made of the tasks' prompts and of texts; it can neither read nor write the
    letters in `without`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [f"so {word} it is" for task in tasks.values() for word in words_of(task)]
    corpus = [*texts, *(prefix_of(task) for task in tasks.values()), *words * _OFTEN]
    unwritten = str.maketrans("", "", without)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(without)),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.translate(unwritten) for text in corpus), trainer)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )
    whole.chat_template = _TEMPLATE
    whole.save_pretrained(folder)


def write_package(folder: Path, tasks: Mapping[str, Task], name: str, version: str = "1") -> None:
    """Make a package of what lies in the folder."""
    labels = {task: definition.label_ids for task, definition in tasks.items()}
    neutral_chat_calibration(labels.get(SENTIMENT, ()), labels.get(TOPIC, ())).write(folder)
    write_manifest(
        folder,
        name=name,
        version=version,
        kind="causal",
        tasks=tasks,
        base=None,
        license="none needed: random numbers",
        data=[],
        training={},
    )
