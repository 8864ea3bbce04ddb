"""Packages of a Gemma-2 without weights: vLLM fills it with random numbers where it runs.

How fast a model computes does not depend on what its weights are, so the form is enough. What it
says has no sense. How much it says would be chance where an answer ends itself, which only a list
of names does; so the tokenizer lacks the bracket that ends one, and every list is as long as it may
be. What is measured so is the least number of reviews a second, and tokens that can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.vllm.gemma import SPECIAL_IDS, write_package, write_tokenizer
from reviewmesh_worker.tasks.definition import Task

_END_OF_LIST: Final = "]"


@dataclass(frozen=True, slots=True)
class Form:
    name: str
    numbers: Mapping[str, Any]
    """As in a `config.json`."""
    reviews: Mapping[str, int]
    """Per turn and task."""


# Source: config.json of google/gemma-2-9b-it on Hugging Face.
GEMMA_2_9B: Final = Form(
    "gemma-2-9b",
    {
        "vocab_size": 256_000,
        "hidden_size": 3584,
        "intermediate_size": 14_336,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "max_position_embeddings": 8192,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "rms_norm_eps": 1e-6,
        "dtype": "bfloat16",
    },
    # Several times what an engine has at once; names are 512 tokens each.
    {"sentiment": 2048, "topic": 2048, "ner": 512},
)
TINY: Final = Form(
    "tiny",
    {
        **GEMMA_2_9B.numbers,
        # As in the large one, most of the embedding belongs to no token of the tokenizer.
        "vocab_size": 16_000,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "dtype": "float32",
    },
    {"sentiment": 64, "topic": 64, "ner": 4},
)


def write(folder: Path, form: Form, tasks: Mapping[str, Task], texts: Iterable[str]) -> None:
    """Write a package of a form, its tokenizer made of the tasks' prompts and of texts."""
    from transformers import Gemma2Config

    write_tokenizer(folder, tasks, texts, without=_END_OF_LIST)
    Gemma2Config(
        architectures=["Gemma2ForCausalLM"], **form.numbers, **SPECIAL_IDS
    ).save_pretrained(folder)
    write_package(folder, tasks, form.name)
