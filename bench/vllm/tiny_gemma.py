"""A package of a Gemma-2 of 1.5 or 7 million random weights: honest for speed, not for sense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.vllm.gemma import SPECIAL_IDS, VOCABULARY, write_package, write_tokenizer
from reviewmesh_worker.tasks.definition import Task


def write(
    folder: Path,
    tasks: Mapping[str, Task],
    texts: Iterable[str],
    version: str = "1",
    hidden: int = 128,
    layers: int = 4,
) -> None:
    """Write a package: random weights (seed 7), a tokenizer made of prompts and texts."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    write_tokenizer(folder, tasks, texts)
    torch.manual_seed(7)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
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
