"""The bundled encoder in standard Hugging Face form, derived from its int8 weights.

The repository holds the weights once, as ONNX. vLLM reads `config.json` and safetensors, so these
are written to the user's cache, under the digest of what they are derived from. The weights are the
int8 ones times their scales, as the ONNX model takes them: both engines compute the same.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from platformdirs import user_cache_path
from safetensors.torch import save_file

from reviewmesh_worker.engines.encoder.config import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    read_config,
)
from reviewmesh_worker.engines.encoder.encoding import SHAPE_COUNT
from reviewmesh_worker.engines.encoder.network import (
    ATTENTION_HEADS,
    HIDDEN,
    INNER,
    LAYER_NAMES,
    NORM_EPSILON,
    POSITIONS,
    ReviewNetwork,
)
from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.engines.vllm import ARCHITECTURE
from reviewmesh_worker.packages.manifest import Package

_FORM: Final = "2"
"""Version of what this module writes, part of the cache key."""

_PARTS: Final = ("encoder.", "sentiment.", "topics.", "tags.")

Array = NDArray[Any]


def huggingface_form(package: Package) -> Path:
    """A folder that vLLM can load, written once per package. Raises EngineLoadError."""
    folder, digest = package.folder, package.digest.removeprefix("sha256:")
    target = _cache_dir() / "models" / f"{digest[:32]}-form{_FORM}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as draft:
        whole = Path(draft) / "model"
        whole.mkdir()
        config = read_config(folder)
        write_form(network_of(folder / WEIGHTS_FILE, config), config, whole)
        shutil.copyfile(folder / TOKENIZER_FILE, whole / TOKENIZER_FILE)
        try:
            whole.rename(target)
        except OSError:
            # Another worker was first and wrote the same.
            if not target.is_dir():
                raise
    return target


def write_form(network: ReviewNetwork, config: ModelConfig, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`."""
    form = config.form
    described = {
        "architectures": [ARCHITECTURE],
        "model_type": "bert",
        # A token's id and its shape are one number to vLLM: id + vocabulary * shape.
        "vocab_size": form.vocabulary * SHAPE_COUNT,
        "review_vocabulary": form.vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": form.layers,
        "num_attention_heads": ATTENTION_HEADS,
        "intermediate_size": INNER,
        "hidden_act": "gelu",
        "layer_norm_eps": NORM_EPSILON,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1,
        "pad_token_id": form.padding,
        "torch_dtype": "float32",
        "review_labels": asdict(config.labels),
    }
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    save_file(_renamed(network.state_dict(), form.layers), str(folder / "model.safetensors"))


def network_of(file: Path, config: ModelConfig) -> ReviewNetwork:
    """The network that an ONNX file of ours holds, in float32. Raises EngineLoadError."""
    network = ReviewNetwork(config.labels, config.form)
    try:
        graph = onnx.load(file).graph
        state = {name: torch.from_numpy(value) for name, value in _parameters(graph).items()}
        # Only the style that is served was exported.
        styles = torch.zeros_like(network.tags.styles.weight)
        styles[0] = state.pop("tags.served_style")
        network.load_state_dict(state | {"tags.styles.weight": styles})
    # A broken file, or one of another network: protobuf and torch raise errors of their own.
    except Exception as error:
        raise EngineLoadError(
            f"expected the ONNX weights of this version's encoder at {file}: {error}; "
            "export the model anew"
        ) from error
    return network.eval()


def _parameters(graph: Any) -> dict[str, Array]:
    """The network's parameters by their own names, dequantized.

    The exporter keeps the names of some; the rest are called by the node that takes them.
    """
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    called: dict[str, Array] = {}
    for name in stored:
        plain = name.removesuffix("_quantized")
        if plain.startswith(_PARTS) and not plain.endswith(("_scale", "_zero_point")):
            called[plain] = _floats(stored, name)
    for node in graph.node:
        path = ".".join(node.name.strip("/").split("/")[:-1])
        for name in node.input[:2]:
            held = name if name in stored else f"{name}_quantized"
            if node.op_type == "MatMul" and held in stored:
                weight = f"{path}.weight" if name.startswith("onnx::") else name
                if weight.endswith(".weight"):
                    # ONNX multiplies by (in, out); a linear layer holds (out, in).
                    called[weight] = np.ascontiguousarray(_floats(stored, held).T)
            elif node.op_type == "Add" and path == "tags" and name.startswith("onnx::Add"):
                called["tags.served_style"] = _floats(stored, name)
    return called


def _floats(stored: Mapping[str, Array], name: str) -> Array:
    plain = name.removesuffix("_quantized")
    if plain == name:
        return stored[name].astype(np.float32)
    zero_point = stored.get(f"{plain}_zero_point", np.zeros(1, np.int8))
    shifted = stored[name].astype(np.int32) - zero_point.astype(np.int32)
    return (shifted * stored[f"{plain}_scale"]).astype(np.float32)


def _renamed(state: Mapping[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """The trunk in the naming of BERT, the heads under `heads`."""
    embeddings = "bert.embeddings"
    named = {
        f"{embeddings}.word_embeddings.weight": state["encoder.words.weight"],
        f"{embeddings}.position_embeddings.weight": state["encoder.positions.weight"],
        f"{embeddings}.shape_embeddings.weight": state["encoder.shapes.weight"],
    }
    for kind in ("weight", "bias"):
        named[f"{embeddings}.LayerNorm.{kind}"] = state[f"encoder.norm.{kind}"]
        for number in range(layers):
            for ours, theirs in LAYER_NAMES.items():
                parts = state[f"encoder.layers.{number}.{ours}.{kind}"].chunk(len(theirs))
                for name, part in zip(theirs, parts, strict=True):
                    named[f"bert.encoder.layer.{number}.{name}.{kind}"] = part
    heads = {f"heads.{name}": value for name, value in state.items() if "encoder." not in name}
    return {name: value.clone().contiguous() for name, value in (named | heads).items()}


def _cache_dir() -> Path:
    if chosen := os.environ.get("REVIEWMESH_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    return user_cache_path("reviewmesh")
