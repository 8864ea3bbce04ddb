"""A package of a Gemma-2 of 7 million random weights: honest for speed, not for sense.

Large enough that on two cores the model is what takes the time, as with every model that is worth
serving: of one with a million weights vLLM answers 500 requests a second, and what is measured is
what the processes around it do on the same cores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.vllm.gemma import SPECIAL_IDS, VOCABULARY, write_package, write_tokenizer
from reviewmesh_worker.tasks.definition import Task


def write(
    folder: Path, tasks: Mapping[str, Task], texts: Iterable[str], version: str = "1"
) -> None:
    """Write a package: random weights (seed 7), a tokenizer made of prompts and texts."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    write_tokenizer(folder, tasks, texts)
    torch.manual_seed(7)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=1024,
        max_position_embeddings=4096,
        **SPECIAL_IDS,
    )
    Gemma2ForCausalLM(config).to(torch.float32).save_pretrained(folder)
    write_package(folder, tasks, "tiny-gemma-2", version)
