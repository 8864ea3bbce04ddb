"""A checked condition as a tree; printed, it reads as the same tree again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from reviewmesh.query.values import iso
from reviewmesh.query.where.fields import Field

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Span:
    """What a written time means: from `start_ms` until before `end_ms`, since the epoch.

    A day, or one millisecond.
    """

    start_ms: int
    end_ms: int

    def __str__(self) -> str:
        moment = iso(self.start_ms)
        return moment.partition("T")[0] if self.end_ms - self.start_ms > 1 else moment


Value = bool | int | float | str | Span
"""Text and versions are a str, by the field's kind."""


@dataclass(frozen=True)
class Comparison:
    field: Field
    operator: str
    value: Value

    def __str__(self) -> str:
        return f"{self.field.name} {self.operator} {_printed(self.value)}"


@dataclass(frozen=True)
class OneOf:
    field: Field
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.field.name} in ({', '.join(map(_printed, self.values))})"


@dataclass(frozen=True)
class IsNull:
    field: Field

    def __str__(self) -> str:
        return f"{self.field.name} is null"


@dataclass(frozen=True)
class Not:
    part: Expression

    def __str__(self) -> str:
        return f"not {_enclosed(self.part)}"


@dataclass(frozen=True)
class And:
    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " and ".join(map(_enclosed, self.parts))


@dataclass(frozen=True)
class Or:
    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " or ".join(map(_enclosed, self.parts))


Expression = Comparison | OneOf | IsNull | Not | And | Or
"""Times in it are absolute: printed and read again later, it means the same."""


def _enclosed(part: Expression) -> str:
    return f"({part})" if isinstance(part, Not | And | Or) else str(part)


def _printed(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
