"""A checked condition as a tree. Its str() parses to the same tree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from reviewmesh.query.values import iso
from reviewmesh.query.where.fields import Field

DAY = timedelta(days=1)


@dataclass(frozen=True)
class TimeSpan:
    """A time in a condition: a whole day, or one millisecond.

    From `start_ms` inclusive to `end_ms` exclusive, in milliseconds since the epoch.
    """

    start_ms: int
    end_ms: int

    def __str__(self) -> str:
        moment = iso(self.start_ms)
        return moment.partition("T")[0] if self.end_ms - self.start_ms > 1 else moment


Value = bool | int | float | str | TimeSpan
"""Text and versions are both str; the field's kind tells which."""


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
"""Its times are absolute, so that its str() means the same later."""


def _enclosed(part: Expression) -> str:
    return f"({part})" if isinstance(part, Not | And | Or) else str(part)


def _printed(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
