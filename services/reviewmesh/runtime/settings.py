"""Settings of every process, read from REVIEWMESH_* and nothing else."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRET_OPTIONS = ("password", "secret", "key.pem", "token")


class KafkaSettings(BaseModel):
    """librdkafka's own options, dots written as underscores; SASL and TLS included."""

    model_config = ConfigDict(extra="allow")
    bootstrap_servers: str = "127.0.0.1:9092"

    def as_librdkafka(self) -> dict[str, str]:
        """The options under librdkafka's names; values may be secrets, so never log them."""
        options = {name.replace("_", "."): str(value) for name, value in self}
        options.update(
            {name.replace("_", "."): str(value) for name, value in (self.model_extra or {}).items()}
        )
        return options

    def __repr__(self) -> str:
        shown = {
            name: "**********" if any(word in name for word in SECRET_OPTIONS) else value
            for name, value in self.as_librdkafka().items()
        }
        return f"KafkaSettings({shown})"

    __str__ = __repr__


class RegistrySettings(BaseModel):
    url: str = "http://127.0.0.1:8081/apis/ccompat/v7"
    username: str | None = None
    password: SecretStr | None = None


class LogSettings(BaseModel):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "console"] = "json"


class HttpSettings(BaseModel):
    """Where /metrics, /healthz and /readyz are served; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0


class WorkersSettings(BaseModel):
    """Inference workers per task: host:port, several separated by commas."""

    ner: str = "127.0.0.1:50051"
    topic: str = "127.0.0.1:50051"
    sentiment: str = "127.0.0.1:50051"


class IntakeSettings(BaseModel):
    dedupe_window_s: float = Field(default=3600, gt=0)
    dedupe_ids: int = Field(default=20_000, gt=0)
    drop_attributes: tuple[str, ...] = ("email", "phone", "ip_address", "user_id")


class JoinSettings(BaseModel):
    """`straggler_s` must exceed session timeout + transaction timeout + the worst inference."""

    max_wait_s: float = Field(default=6 * 3600, gt=0)
    straggler_s: float = Field(default=60, gt=0)
    late_window_s: float = Field(default=24 * 3600, gt=0)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="REVIEWMESH_", env_nested_delimiter="__")

    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    workers: WorkersSettings = WorkersSettings()
    intake: IntakeSettings = IntakeSettings()
    join: JoinSettings = JoinSettings()
    prefix: str = Field(default="", description="Put before every topic, group and subject.")
    slot: str = Field(
        default_factory=socket.gethostname,
        description="Stable name of this process among its service's replicas.",
    )
    grace_s: float = Field(default=20, gt=0, description="Time to finish work after SIGTERM.")
