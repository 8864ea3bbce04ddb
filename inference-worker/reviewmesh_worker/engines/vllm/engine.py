"""The engine for a package: pooling for an encoder, generation for a chat model."""

from __future__ import annotations

from collections.abc import Mapping

from reviewmesh_worker.engines.interface import Engine
from reviewmesh_worker.engines.vllm.chat import VllmChatEngine
from reviewmesh_worker.engines.vllm.encoder import VllmEncoderEngine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.settings import Settings
from reviewmesh_worker.tasks.definition import Task


def open_engine(package: Package, tasks: Mapping[str, Task], settings: Settings) -> Engine:
    """Raises EngineLoadError."""
    if package.manifest.kind == "encoder":
        return VllmEncoderEngine(package, tasks, settings.vllm)
    return VllmChatEngine(package, tasks, settings.vllm)
