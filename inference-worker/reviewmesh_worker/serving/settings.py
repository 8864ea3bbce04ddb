"""Settings of a worker process, read from the environment (REVIEWMESH_*) only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from reviewmesh_kit.settings import CommaSeparated, ProcessSettings, Section
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.settings import (
    EngineChoice,
    EngineSettings,
    OpenAISettings,
    VllmSettings,
)
from reviewmesh_worker.tasks import BUNDLED_TASKS


class WorkerSettings(Section):
    """Where the gRPC service listens, what it serves and how much at once."""

    host: str = Field(default="127.0.0.1", description="Address of the gRPC service.")
    port: int = Field(
        default=50051,
        ge=0,
        le=65535,
        description="Port of the gRPC service; 0 takes a free one.",
    )
    allowed_clients: CommaSeparated = Field(
        default=(),
        description="With mutual TLS, the names whose certificates may call: DNS names or URIs "
        "(SPIFFE ids) among the subject alternative names.",
    )
    model: Path = Field(
        default=BUNDLED_MODEL,
        description="Folder of the package to serve; without it, the bundled one.",
    )
    model_registry: Path | None = Field(
        default=None,
        description="Folder of a registry, in place of one package: the packages that its aliases "
        "name are served, also when the aliases change.",
    )
    alias: Literal["serving", "candidate"] = Field(
        default="serving",
        description="Which alias of the registry is followed: serving, or candidate for the "
        "workers that a rollout asks beside them.",
    )
    tasks: CommaSeparated = Field(default=(), description="Tasks to serve; without it, all.")
    task_definitions: Path = Field(
        default=BUNDLED_TASKS,
        description="Folder of task definitions; without it, the bundled ones.",
    )
    engine: EngineChoice = Field(
        default="auto",
        description="auto: onnx for an encoder, vllm for a chat model. openai: the provider's "
        "model that REVIEWMESH_OPENAI__MODEL names serves, in place of a package.",
    )
    swap: Literal["beside", "drain"] = Field(
        default="beside",
        description="beside: a promoted package is loaded while the old one serves, if memory "
        "allows; drain: the old one is unloaded first.",
    )
    max_in_flight: int = Field(
        default=256,
        gt=0,
        le=100_000,
        description="Items in progress at once; calls beyond it are refused.",
    )
    grace_s: float = Field(
        default=20,
        gt=0,
        allow_inf_nan=False,
        description="Seconds to finish calls after SIGTERM or while draining.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.model_registry is not None and "model" in self.model_fields_set:
            raise ValueError(
                "expected a package (REVIEWMESH_WORKER__MODEL) or a registry "
                "(REVIEWMESH_WORKER__MODEL_REGISTRY), got both"
            )
        if self.alias != "serving" and self.model_registry is None:
            raise ValueError(
                "expected a registry (REVIEWMESH_WORKER__MODEL_REGISTRY) with "
                f"REVIEWMESH_WORKER__ALIAS={self.alias}"
            )
        return self


class Settings(ProcessSettings):
    worker: WorkerSettings = WorkerSettings()
    vllm: VllmSettings = VllmSettings()
    openai: OpenAISettings = OpenAISettings()

    @model_validator(mode="after")
    def _who_may_call(self) -> Self:
        if self.tls.ca is not None and not self.worker.allowed_clients:
            raise ValueError(
                "expected the names of the enrichers' certificates in "
                "REVIEWMESH_WORKER__ALLOWED_CLIENTS: with mutual TLS only they may call"
            )
        if self.tls.ca is None and self.worker.allowed_clients:
            raise ValueError(
                "expected REVIEWMESH_TLS__CA, __CERTIFICATE and __KEY with "
                "REVIEWMESH_WORKER__ALLOWED_CLIENTS: in plaintext nobody has a name"
            )
        return self

    @model_validator(mode="after")
    def _what_the_engine_needs(self) -> Self:
        if self.worker.engine != "openai":
            return self
        if not self.openai.model:
            raise ValueError(
                "expected REVIEWMESH_OPENAI__MODEL, the provider's name of the model, with the "
                "engine openai"
            )
        if {"model", "model_registry"} & self.worker.model_fields_set:
            raise ValueError(
                "expected no package (REVIEWMESH_WORKER__MODEL, "
                "REVIEWMESH_WORKER__MODEL_REGISTRY) with the engine openai; take it out"
            )
        return self

    @property
    def engines(self) -> EngineSettings:
        return EngineSettings(self.worker.engine, self.vllm, self.openai)

    @property
    def max_in_flight(self) -> int:
        """Items that the worker takes in: no more than its engine works on soon."""
        if self.worker.engine == "openai":
            return min(self.worker.max_in_flight, 2 * self.openai.max_concurrency)
        return self.worker.max_in_flight
