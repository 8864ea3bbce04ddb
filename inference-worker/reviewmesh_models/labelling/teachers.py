"""`teachers.yaml`: the teachers, their prices, and the budget.

teachers:
  - name: large
    base_url: https://provider.example/v1
    model: large-1
    key_env: PROVIDER_KEY
    region: eu
    price: {input: 0.4, output: 1.6}
  - name: ours
    package: e5-reviews
budget: {requests: 2000, money: 5}
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Final, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from reviewmesh_kit.yamltext import load_yaml

_LARGEST: Final = 1024 * 1024
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")]


class TeachersError(ValueError):
    """The file is invalid; the message names the line, what was expected and what came."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TeacherPrice(_Part):
    """Of a million tokens, in the currency of the budget."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Teacher(_Part):
    """An OpenAI-compatible endpoint with a model, or a package of a model."""

    name: _Name
    base_url: str | None = None
    model: str | None = Field(default=None, min_length=1)
    key_env: str | None = Field(default=None, min_length=1)
    key_file: Path | None = None
    price: TeacherPrice | None = None
    region: str | None = Field(default=None, min_length=1)
    """Where texts go in the end, as in the mesh's policy; None where nobody says."""
    inside: bool = False
    """The endpoint is in the house: a text that it gets has not left."""
    batch: bool = False
    """Ask in the provider's batches: cheaper, and within a day."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Calls that are under way at once."""
    timeout_s: float = Field(default=60, gt=0, le=3600)
    temperature: float | None = Field(default=0, ge=0, le=2)
    """None leaves it out of the request, for models that refuse it."""
    answer_tokens: int | None = Field(default=None, ge=1, le=131072)
    """The longest answer in tokens, including reasoning; by the task if None."""
    package: str | None = Field(default=None, min_length=1)
    """Folder of a package, or NAME@VERSION in the registry."""

    @property
    def identity(self) -> str:
        """A digest of the fields that affect answers: another model under the same name is another
        teacher."""
        decisive = self.model_dump(
            mode="json", include={"base_url", "model", "package", "temperature", "answer_tokens"}
        )
        canonical = json.dumps(decisive, sort_keys=True)
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"

    def may_get(self, leaves_for: Collection[str] | None) -> bool:
        """Whether a text may be sent there that leaves for these regions; None: for any."""
        stays = self.inside or self.package is not None
        return stays or leaves_for is None or self.region in leaves_for

    def key(self) -> SecretStr:
        """The key of the endpoint; a placeholder if none is configured. Raises TeachersError."""
        if self.key_env is not None:
            if not (found := os.environ.get(self.key_env)):
                raise TeachersError(
                    f"teacher {self.name}: expected its key in the environment's {self.key_env}, "
                    "found none"
                )
            return SecretStr(found)
        if self.key_file is not None:
            try:
                return SecretStr(self.key_file.read_text(encoding="utf-8").strip())
            except OSError as error:
                raise TeachersError(
                    f"teacher {self.name}: expected its key in {self.key_file}, {error.strerror}"
                ) from error
        return SecretStr("none")

    @model_validator(mode="after")
    def _is_an_endpoint_or_a_package(self) -> Self:
        if (self.package is None) == (self.base_url is None):
            raise ValueError("expected either base_url or package")
        if self.base_url is not None:
            if not self.base_url.startswith(("http://", "https://")):
                raise ValueError(f"expected base_url to be of http or https, got {self.base_url!r}")
            if self.model is None:
                raise ValueError("expected the model that the endpoint is to be asked for")
            if self.inside and self.region is not None:
                raise ValueError("expected either region or inside")
            if self.key_env is not None and self.key_file is not None:
                raise ValueError("expected either key_env or key_file")
        elif endpoint := sorted(self.model_fields_set - {"name", "package"}):
            raise ValueError(f"a package takes no {', '.join(endpoint)}")
        return self


class Budget(_Part):
    """The limit of all runs over one folder together; at least one bound is set."""

    requests: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    money: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.requests is None and self.tokens is None and self.money is None:
            raise ValueError("expected at least one of requests, tokens and money")
        return self


class Teachers(_Part):
    teachers: tuple[Teacher, ...] = Field(min_length=2)
    budget: Budget | None = None
    """None if all teachers are packages, which cost nothing."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [teacher.name for teacher in self.teachers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected each name once, found twice: {', '.join(twice)}")
        paid = [teacher for teacher in self.teachers if teacher.package is None]
        if paid and self.budget is None:
            raise ValueError("expected a budget, because endpoints are asked")
        if self.budget is not None and self.budget.money is not None:
            for teacher in paid:
                if teacher.price is None:
                    raise ValueError(
                        f"expected a price of the teacher {teacher.name}, because the budget is "
                        "in money"
                    )
        return self


def read_teachers(file: Path) -> Teachers:
    """Raises TeachersError."""
    try:
        if file.stat().st_size > _LARGEST:
            raise TeachersError(f"{file}: expected at most {_LARGEST:,} bytes")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TeachersError(
            f"expected a file of teachers at {file}, {error}; docs/labelling.md shows one"
        ) from error
    try:
        content = load_yaml(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise TeachersError(f"{file}: expected YAML, {error}") from error
    try:
        return Teachers.model_validate(content)
    except ValidationError as error:
        problems = (
            f"{file}, line {_line(root, one['loc'])}: {_place(one['loc'])}{one['msg']}"
            for one in error.errors()
        )
        raise TeachersError("\n".join(problems)) from error


def _place(path: Sequence[int | str]) -> str:
    return f"{'.'.join(str(part) for part in path)}: " if path else ""


def _line(node: yaml.Node | None, path: Sequence[int | str]) -> int:
    """The line of the path's node, or of the one that should hold it."""
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, held) for key, held in node.value if key.value == str(part)), None)
            if found is None:
                break
            line = found[0].start_mark.line + 1
            node = found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
