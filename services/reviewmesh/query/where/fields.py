"""The fields that a condition may name, and what they hold, from the schema of EnrichedReview."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from reviewmesh.query.values import schema_of
from reviewmesh_schemas.names import ENRICHED, TASKS


class Kind(Enum):
    """What a field holds; the value is what an error calls it."""

    TEXT = "text"
    LANGUAGE = "a language"
    STATUS = "a task's status"
    VERSION = "a version"
    NUMBER = "a number"
    TIME = "a time"
    FLAG = "true or false"


ORDERED = (Kind.VERSION, Kind.NUMBER, Kind.TIME)
"""Kinds of which one value can be smaller than another."""
NUMBERS = ("int", "long", "float", "double")


@dataclass(frozen=True)
class Field:
    """A field, and the keys that lead to it in a decoded EnrichedReview."""

    name: str
    kind: Kind
    path: tuple[str, ...]


@cache
def fields_of(task: str) -> dict[str, Field]:
    """By name: what can be asked of a record when `task` is the one to be done again.

    Without a task before it, the name of an outcome or of a lineage means that of `task`. The
    review's own fields hide timings of the same name, which hold the same.
    """
    if task not in TASKS:
        raise ValueError(f"expected one of the tasks {', '.join(TASKS)}, got {task!r}")
    review = _parts(schema_of(ENRICHED))
    outcome = _parts(_single(review["tasks"])["values"])
    lineage = _parts(_single(outcome["lineage"]))
    paths: dict[tuple[str, ...], Any] = {(name,): type_ for name, type_ in review.items()}
    paths |= {("timings", name): type_ for name, type_ in _parts(review["timings"]).items()}
    for name in TASKS:
        paths |= {("tasks", name, part): type_ for part, type_ in outcome.items()}
        paths |= {("tasks", name, "lineage", part): type_ for part, type_ in lineage.items()}
    found: dict[str, Field] = {}
    for path, type_ in paths.items():
        kind = _kind(path, type_)
        if kind is None:
            continue
        if path[0] != "tasks":
            found.setdefault(path[-1], Field(path[-1], kind, path))
            continue
        if path[1] == task:
            found.setdefault(path[-1], Field(path[-1], kind, path))
        found[f"{path[1]}.{path[-1]}"] = Field(f"{path[1]}.{path[-1]}", kind, path)
    return found


def help_with(name: str, task: str) -> str:
    """What to write in place of a name that is no field."""
    if name in _parts(schema_of(ENRICHED)):
        return "it holds more than one value, and a condition compares single values"
    known = fields_of(task)
    if near := difflib.get_close_matches(name.lower(), known, n=1):
        return f"did you mean {near[0]}?"
    return f"expected one of {', '.join(sorted(field for field in known if '.' not in field))}"


def _kind(path: tuple[str, ...], type_: Any) -> Kind | None:
    """None where it holds more than one value."""
    single = _single(type_)
    if isinstance(single, dict):
        if single.get("logicalType") == "timestamp-millis":
            return Kind.TIME
        single = single["type"]
    if path == ("language",):
        return Kind.LANGUAGE
    if path[0] == "tasks" and path[2:] == ("status",):
        return Kind.STATUS
    if single == "string":
        in_lineage = "lineage" in path
        return Kind.VERSION if in_lineage and path[-1].endswith("_version") else Kind.TEXT
    if single == "boolean":
        return Kind.FLAG
    return Kind.NUMBER if single in NUMBERS else None


def _single(type_: Any) -> Any:
    """The type itself where it may also be null: every union of the contracts is such a one."""
    if isinstance(type_, list):
        [type_] = [branch for branch in type_ if branch != "null"]
    return type_


def _parts(record: Any) -> dict[str, Any]:
    """By name: the types of a record's fields."""
    return {field["name"]: field["type"] for field in _single(record)["fields"]}
