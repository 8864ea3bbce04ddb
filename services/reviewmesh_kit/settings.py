"""Settings, only from REVIEWMESH_* variables. Unknown names are an error."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from reviewmesh_kit.certificates import PemFiles
from reviewmesh_kit.environment import (
    PREFIX,
    WrongSecretFile,
    unknown_settings,
    with_secrets_of_files,
)


def variable(*path: str) -> str:
    """The environment's name of a setting."""
    return PREFIX + "__".join(path).upper()


class Section(BaseModel):
    """A section of the settings. Unknown names are an error, so misspelt ones are noticed."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return tuple(name.strip() for name in value.split(",") if name.strip())


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""In the environment a JSON list, or separated by commas."""


class LogSettings(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is logged."
    )
    format: Literal["json", "console"] = Field(
        default="json", description="json: one JSON object per line; console: for reading."
    )


class HttpSettings(Section):
    host: str = Field(
        default="127.0.0.1",
        description="Address on which /metrics, /healthz and /readyz are served.",
    )
    port: int = Field(
        default=0, ge=0, le=65535, description="Port of these endpoints; 0 takes a free one."
    )


class TlsSettings(Section):
    """Mutual TLS between enrichers and workers, as PEM files. All three, or none: plaintext.

    The files are read again while the process runs, so that certificates rotate without a restart.
    """

    ca: FilePath | None = Field(
        default=None,
        description="PEM file of the certificate authorities that sign enrichers and workers.",
    )
    certificate: FilePath | None = Field(
        default=None,
        description="PEM file of this process's certificate and its chain. A worker's holds the "
        "name under which enrichers reach it.",
    )
    key: FilePath | None = Field(
        default=None, description="PEM file of the certificate's private key, without a password."
    )

    def files(self) -> PemFiles | None:
        """None: plaintext."""
        return None if self.ca is None else PemFiles(self.ca, self.certificate, self.key)

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        missing = [name for name, path in self if path is None]
        if missing and len(missing) < len(type(self).model_fields):
            names = ", ".join(variable("tls", name) for name in missing)
            raise ValueError(f"mutual TLS needs all three files; expected as well: {names}")
        return self


class _Environment(EnvSettingsSource):
    """The environment, with the secrets that lie in files."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        try:
            return with_secrets_of_files(super()._load_env_vars())
        except WrongSecretFile as error:
            raise WrongSecretSetting(str(error)) from None


class WrongSecretSetting(SettingsError):
    """A secret cannot be read from its file."""


class ProcessSettings(BaseSettings):
    """The settings that every process has."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", hide_input_in_errors=True
    )

    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls)

    @model_validator(mode="after")
    def _environment_holds_no_other_names(self) -> Self:
        if unknown := unknown_settings(os.environ):
            raise ValueError("\n".join(unknown))
        return self


def problems(error: ValidationError | SettingsError) -> list[str]:
    """A message for each invalid setting, with its name and without its value."""
    if isinstance(error, ValidationError):
        return [
            _problem(problem["type"], [str(part) for part in problem["loc"]], problem["msg"])
            for problem in error.errors(include_input=False, include_url=False)
        ]
    if isinstance(error, WrongSecretSetting):
        return [str(error)]
    found = re.search(r'field "(\w+)"', str(error))
    name = variable(found[1]) if found else PREFIX
    return [f"{name}: expected JSON; or give each value by itself, as {name}__<NAME>"]


def _problem(kind: str, path: list[str], message: str) -> str:
    if not path:
        return message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = "there is no such setting"
    if kind == "path_not_file":
        given = os.environ.get(variable(*path), "")
        message = f"expected a file, got {given} (a relative path begins at {os.getcwd()})"
    if kind == "too_short":
        message = message.replace("items after validation", "characters")
    return f"{variable(*path)}: {message.removeprefix('Value error, ')}"
