"""The weights of a chat model, from a GGUF file's blocks to Hugging Face's names and order."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
from gguf import ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray

from reviewmesh_models.training.gguf_base.form import LLAMA, QWEN2, ChatForm
from reviewmesh_models.training.gguf_base.reading import GgufContent, GgufError

LAST_LAYER: Final = "lm_head.weight"
"""Not there where the embedding is the last layer as well."""

_WHOLE: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": LAST_LAYER,
}
_OPTIONAL: Final = "output.weight"
_OF_A_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER: Final = re.compile(r"blk\.(0|[1-9]\d{0,3})\.(\w+)\.(weight|bias)")

Halves = NDArray[np.float16]
_Shape = tuple[int, ...]


def read_weights(content: GgufContent, form: ChatForm) -> dict[str, Halves]:
    """By their names in Hugging Face form. Raises GgufError."""
    shapes = _shapes(form)
    if unknown := sorted(content.tensors.keys() - shapes.keys()):
        raise GgufError(
            f"expected the tensors of a {form.architecture} with {form.layers} layers, found "
            f"others as well: {', '.join(unknown[:5])[:200]}"
        )
    if missing := sorted(shapes.keys() - content.tensors.keys() - {_OPTIONAL}):
        raise GgufError(f"expected the tensors {', '.join(missing[:5])}, found none of that name")
    return {
        _new_name(name): _weight(tensor, shapes[name], form)
        for name, tensor in content.tensors.items()
    }


def _shapes(form: ChatForm) -> dict[str, _Shape]:
    """Of every tensor that may be there."""
    queries, keys = form.hidden, form.head * form.key_value_heads
    shapes: dict[str, _Shape] = {
        "token_embd.weight": (form.vocabulary, form.hidden),
        "output_norm.weight": (form.hidden,),
        _OPTIONAL: (form.vocabulary, form.hidden),
    }
    layer: dict[str, _Shape] = {
        "attn_norm.weight": (form.hidden,),
        "attn_q.weight": (queries, form.hidden),
        "attn_k.weight": (keys, form.hidden),
        "attn_v.weight": (keys, form.hidden),
        "attn_output.weight": (form.hidden, queries),
        "ffn_norm.weight": (form.hidden,),
        "ffn_gate.weight": (form.inner, form.hidden),
        "ffn_up.weight": (form.inner, form.hidden),
        "ffn_down.weight": (form.hidden, form.inner),
    }
    if form.architecture == QWEN2:
        layer |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    for number in range(form.layers):
        shapes |= {f"blk.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def _new_name(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    found = _LAYER.fullmatch(name)
    assert found is not None  # Every other name of `_shapes` has this form.
    return f"model.layers.{found[1]}.{_OF_A_LAYER[found[2]]}.{found[3]}"


def _weight(tensor: ReaderTensor, shape: _Shape, form: ChatForm) -> Halves:
    # GGUF names the innermost dimension first.
    found = tuple(int(size) for size in reversed(tensor.shape))
    if found != shape:
        raise GgufError(f"expected {tensor.name} of the shape {shape}, found {found}")
    values = _dequantized(tensor).reshape(shape)
    if form.architecture == LLAMA and ".attn_q." in tensor.name:
        values = _halves_apart(values, form.heads)
    if form.architecture == LLAMA and ".attn_k." in tensor.name:
        values = _halves_apart(values, form.key_value_heads)
    with np.errstate(over="ignore"):
        halves: Halves = np.ascontiguousarray(values, np.float16)
    if not np.isfinite(halves).all():
        raise GgufError(f"expected {tensor.name} in the range of float16, found values beyond it")
    return halves


def _dequantized(tensor: ReaderTensor) -> NDArray[Any]:
    try:
        return dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise GgufError(
            f"expected {tensor.name} in a type that the package gguf can dequantize, found "
            f"{tensor.tensor_type.name}"
        ) from error


def _halves_apart(values: NDArray[Any], heads: int) -> NDArray[Any]:
    """The rows of each head in Hugging Face's order.

    A rotation turns pairs of features. llama.cpp has the two of a pair side by side in a Llama,
    Hugging Face has all first ones before all second ones.
    """
    pairs = values.reshape(heads, -1, 2, values.shape[1])
    return pairs.swapaxes(1, 2).reshape(values.shape)
