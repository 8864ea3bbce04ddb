"""Settings of a worker process, read from the environment (REVIEWMESH_*) only."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from reviewmesh_schemas.environment import unknown_settings
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.settings import EngineChoice, EngineSettings, VllmSettings
from reviewmesh_worker.tasks import BUNDLED_TASKS

ENV_PREFIX = "REVIEWMESH_"


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return tuple(name.strip() for name in value.split(",") if name.strip())


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""In the environment a JSON list, or separated by commas."""


class WorkerSettings(BaseModel):
    """Where the gRPC service listens, what it serves and how much at once."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address of the gRPC service.")
    port: int = Field(
        default=50051,
        ge=0,
        le=65535,
        description="Port of the gRPC service; 0 takes a free one.",
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
    tasks: Names = Field(default=(), description="Tasks to serve; without it, all.")
    task_definitions: Path = Field(
        default=BUNDLED_TASKS,
        description="Folder of task definitions; without it, the bundled ones.",
    )
    engine: EngineChoice = Field(
        default="auto", description="auto: onnx for an encoder, vllm for a chat model."
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
        return self


class HttpSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        description="Address on which /metrics, /healthz and /readyz are served.",
    )
    port: int = Field(
        default=0, ge=0, le=65535, description="Port of these endpoints; 0 takes a free one."
    )


class LogSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is logged."
    )
    format: Literal["json", "console"] = Field(
        default="json", description="json: one JSON object per line; console: for reading."
    )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="REVIEWMESH_", env_nested_delimiter="__")

    worker: WorkerSettings = WorkerSettings()
    vllm: VllmSettings = VllmSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @property
    def engines(self) -> EngineSettings:
        return EngineSettings(self.worker.engine, self.vllm)

    @model_validator(mode="after")
    def _environment_holds_no_other_names(self) -> Self:
        if unknown := unknown_settings(os.environ):
            raise ValueError("\n".join(unknown))
        return self


def problems(error: ValidationError) -> list[str]:
    """A line for each setting that is wrong, under its name."""
    return [_problem(one["type"], one["loc"], one["msg"]) for one in error.errors()]


def _problem(kind: str, path: Sequence[int | str], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not path:
        return message
    if kind == "extra_forbidden":
        message = "there is no such setting"
    return f"{ENV_PREFIX}{'__'.join(str(part).upper() for part in path)}: {message}"
