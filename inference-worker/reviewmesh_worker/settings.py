"""Settings of a worker, read from REVIEWMESH_* and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from reviewmesh_worker.models import BUNDLED_MODEL


class WorkerSettings(BaseModel):
    """Where the gRPC service listens, what it serves and how much at once."""

    host: str = "127.0.0.1"
    port: int = 50051
    model: Path = BUNDLED_MODEL
    max_in_flight: int = Field(default=256, gt=0, description="Items admitted at once.")
    grace_s: float = Field(default=20, gt=0, description="Time to finish calls after SIGTERM.")


class HttpSettings(BaseModel):
    host: str = "127.0.0.1"
    port: int = 0


class LogSettings(BaseModel):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "console"] = "json"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="REVIEWMESH_", env_nested_delimiter="__")

    worker: WorkerSettings = WorkerSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
