"""The exported model with its large weights stored as int8 and computed in float32.

A quarter of the size, and an answer depends on its text only: int8 activations would be scaled by
the maximum of the batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_TRUNK: Final = "/encoder/"
"""The heads stay exact: they are small, and rounding costs most where a decision is made."""
_WORDS: Final = "encoder.words.weight"
_LARGEST: Final = 127
_LEAST_SCALE: Final = 1e-10

Array = NDArray[Any]


def store_as_int8(exact: Path, file: Path) -> None:
    """Write the model of `exact` with the products of its trunk and its word vectors in int8."""
    model = onnx.load(exact)
    graph = model.graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    stored: dict[str, Array] = {}
    nodes: list[Any] = []
    for node in graph.node:
        name = next((name for name in node.input if name in held), "")
        if node.op_type == "Gather" and name == _WORDS:
            stored |= _rounded(name, held[name], axis=1)
            nodes += _gathered(node, name)
        elif node.op_type == "MatMul" and node.name.startswith(_TRUNK) and name:
            stored |= _rounded(name, held[name], axis=0)
            parts = [f"{name}_quantized", f"{name}_scale"]
            nodes += [helper.make_node("DequantizeLinear", parts, [name], axis=1), node]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in used - _replaced(stored)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _rounded(name: str, weight: Array, axis: int) -> dict[str, Array]:
    """Symmetric, with a scale of its own for each output (axis 0) or each word (axis 1)."""
    scale = np.maximum(np.abs(weight).max(axis, keepdims=True), _LEAST_SCALE) / _LARGEST
    whole = np.round(weight / scale).astype(np.int8)
    # DequantizeLinear wants a vector, the words' scales are multiplied with rows.
    scale = scale if axis else scale.reshape(-1)
    return {f"{name}_quantized": whole, f"{name}_scale": scale.astype(np.float32)}


def _gathered(node: Any, name: str) -> list[Any]:
    ids, out = node.input[1], node.output[0]
    return [
        helper.make_node("Gather", [f"{name}_quantized", ids], [f"{out}_whole"]),
        helper.make_node("Cast", [f"{out}_whole"], [f"{out}_real"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scale", ids], [f"{out}_scale"]),
        helper.make_node("Mul", [f"{out}_real", f"{out}_scale"], [out]),
    ]


def _replaced(stored: dict[str, Array]) -> set[str]:
    return {name.removesuffix("_quantized") for name in stored if name.endswith("_quantized")}
