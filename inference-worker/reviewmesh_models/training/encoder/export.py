"""From a trained network to the folder that serves: ONNX, int8, fitted settings."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from onnxruntime.quantization.shape_inference import quant_pre_process

from reviewmesh_models.evaluation.rows import Row
from reviewmesh_models.training.encoder.calibration import fit_calibration, read_held_out
from reviewmesh_models.training.encoder.dataset import MAX_TOKENS
from reviewmesh_models.training.encoder.storage import store_as_int8
from reviewmesh_worker.engines.encoder.config import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    EncoderForm,
    ModelConfig,
    neutral_encoder_calibration,
    write_config,
)
from reviewmesh_worker.engines.encoder.network import ReviewNetwork
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.tasks.labels import HeadLabels

_OPSET: Final = 17
_OVERLAP: Final = 30
_OUTPUTS: Final = ("sentiment", "topics", "polarities", "tags")


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """What was not trained on."""

    reviews: list[Row]
    translated: list[Row]
    """With a sentiment and without topics."""
    entities: list[Row]


def export(
    network: ReviewNetwork,
    tokenizer_file: Path,
    held_out: HeldOutRows,
    folder: Path,
    labels: HeadLabels,
    form: EncoderForm,
) -> None:
    """Write the model, then fit its settings on the int8 weights as they will serve."""
    shutil.copyfile(tokenizer_file, folder / TOKENIZER_FILE)
    _write_weights(network, folder / WEIGHTS_FILE)
    window = MAX_TOKENS - 2
    neutral = neutral_encoder_calibration(labels)
    unfitted = ModelConfig(window, window - _OVERLAP, labels, neutral, form)
    write_config(folder, unfitted)
    reader = OnnxReader(folder, threads=torch.get_num_threads())
    fitted = fit_calibration(
        reviews=read_held_out(reader, held_out.reviews),
        translated=read_held_out(reader, held_out.translated),
        entities=read_held_out(reader, held_out.entities),
    )
    write_config(folder, replace(unfitted, calibration=fitted))


def _write_weights(network: ReviewNetwork, file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "exact.onnx"
        prepared = Path(folder) / "prepared.onnx"
        _write_exact(network, exact)
        quant_pre_process(exact, prepared, skip_symbolic_shape=True)
        store_as_int8(prepared, file)


def _write_exact(network: ReviewNetwork, file: Path) -> None:
    network.eval()
    ids = torch.randint(4, network.encoder.words.num_embeddings, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    inputs = ("ids", "shapes", "mask")
    torch.onnx.export(
        network,
        (ids, torch.ones_like(ids), mask),
        str(file),
        input_names=list(inputs),
        output_names=list(_OUTPUTS),
        dynamic_axes={
            **{name: {0: "texts", 1: "tokens"} for name in (*inputs, "tags")},
            **{name: {0: "texts"} for name in _OUTPUTS[:3]},
        },
        opset_version=_OPSET,
        dynamo=False,
    )
