"""GGUF files of tiny chat models, written with the writer of the package `gguf`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPECIALS = ["<|pad|>", "<|start|>", "<|end|>"]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["t h", "th e", "Ġ the", "Ġ n", "o n", "Ġn on", "Ġnon e"]
TOKENS = [*SPECIALS, *LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
TYPES = [3] * len(SPECIALS) + [1] * (len(TOKENS) - len(SPECIALS))

HIDDEN, INNER, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD = 64, 96, 2, 4, 2, 16

Weights = dict[str, NDArray[np.float32]]


def metadata(architecture: str) -> dict[str, Any]:
    """What a model of these numbers says of itself."""
    return {
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": 512,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INNER,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KEY_VALUE_HEADS,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 50000.0,
        f"{architecture}.rope.dimension_count": HEAD,
        f"{architecture}.vocab_size": len(TOKENS),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm" if architecture == "llama" else "qwen2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }


def random_weights(architecture: str, seed: int = 3) -> Weights:
    """By their names in a GGUF file."""
    random = np.random.default_rng(seed)
    queries, keys = HEADS * HEAD, KEY_VALUE_HEADS * HEAD
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TOKENS), HIDDEN),
        "output_norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.attn_q.weight": (queries, HIDDEN),
            f"blk.{layer}.attn_k.weight": (keys, HIDDEN),
            f"blk.{layer}.attn_v.weight": (keys, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, queries),
            f"blk.{layer}.ffn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ffn_gate.weight": (INNER, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (INNER, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, INNER),
        }
        if architecture == "qwen2":
            shapes |= {
                f"blk.{layer}.attn_q.bias": (queries,),
                f"blk.{layer}.attn_k.bias": (keys,),
                f"blk.{layer}.attn_v.bias": (keys,),
            }
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(
    file: Path,
    architecture: str,
    weights: Mapping[str, NDArray[Any]],
    values: Mapping[str, Any],
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """A file of these weights; matrices in blocks of `kind`, vectors always as they are."""
    writer = GGUFWriter(str(file), architecture)
    for key, value in values.items():
        _add(writer, key, value)
    for name, value in weights.items():
        if value.ndim == 1 or kind == GGMLQuantizationType.F32:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
