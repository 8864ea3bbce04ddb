"""Settings of a worker process, read from the environment (REVIEWMESH_*) only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from reviewmesh_kit.settings import Names, ProcessSettings, Section
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.settings import EngineChoice, EngineSettings, VllmSettings
from reviewmesh_worker.tasks import BUNDLED_TASKS


class WorkerSettings(Section):
    """Where the gRPC service listens, what it serves and how much at once."""

    host: str = "127.0.0.1"
    port: int = Field(default=50051, ge=0, le=65535)
    model: Path = Field(default=BUNDLED_MODEL, description="Folder of the package to serve.")
    model_registry: Path | None = Field(
        default=None,
        description="Folder of a registry: what its aliases name is served, in place of `model`.",
    )
    tasks: Names = Field(
        default=(), description="Tasks to serve; all that there are where none is named."
    )
    task_definitions: Path = Field(default=BUNDLED_TASKS, description="Folder of tasks.")
    engine: EngineChoice = Field(
        default="auto", description="auto: onnx for an encoder, vllm for a chat model."
    )
    swap: Literal["beside", "drain"] = Field(
        default="beside",
        description="beside: a promoted package is loaded while the old one serves, where memory "
        "allows; drain: the old one is let go of first.",
    )
    max_in_flight: int = Field(default=256, gt=0, le=100_000, description="Items admitted at once.")
    grace_s: float = Field(
        default=20,
        gt=0,
        allow_inf_nan=False,
        description="Time to finish calls after SIGTERM or before a drain's end.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.model_registry is not None and "model" in self.model_fields_set:
            raise ValueError(
                "expected a package (REVIEWMESH_WORKER__MODEL) or a registry "
                "(REVIEWMESH_WORKER__MODEL_REGISTRY), got both"
            )
        return self


class Settings(ProcessSettings):
    worker: WorkerSettings = WorkerSettings()
    vllm: VllmSettings = VllmSettings()

    @property
    def engines(self) -> EngineSettings:
        return EngineSettings(self.worker.engine, self.vllm)
