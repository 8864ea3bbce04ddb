"""The engine for a package: pooling for an encoder, generation for a chat model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reviewmesh_worker.engines.interface import Engine, EngineLoadError
from reviewmesh_worker.engines.settings import EngineSettings
from reviewmesh_worker.engines.vllm.chat import VllmChatEngine
from reviewmesh_worker.engines.vllm.encoder import VllmEncoderEngine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks.definition import Task

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".gguf", ".onnx")


def open_engine(package: Package, tasks: Mapping[str, Task], settings: EngineSettings) -> Engine:
    """Raises EngineLoadError."""
    weights = [file for file in package.manifest.files if file.endswith(_WEIGHTS)]
    if settings.vllm.load_format == "dummy" and weights:
        raise EngineLoadError(
            f"REVIEWMESH_VLLM__LOAD_FORMAT is dummy, with which {package.id} would answer at "
            f"random, and it has weights ({weights[0]}): take the setting out"
        )
    if package.manifest.kind == "encoder":
        return VllmEncoderEngine(package, tasks, settings.vllm)
    return VllmChatEngine(package, tasks, settings.vllm)
