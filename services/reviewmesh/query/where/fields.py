"""The fields of a condition and their types, from the schema of EnrichedReview."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from reviewmesh.query.values import schema_of
from reviewmesh_schemas.names import ENRICHED, TASKS


class FieldKind(Enum):
    """The type of a field's values, in the words of error messages."""

    TEXT = "text"
    LANGUAGE = "a language"
    STATUS = "a task's status"
    VERSION = "a version"
    NUMBER = "a number"
    TIME = "a time"
    FLAG = "true or false"


ORDERED = (FieldKind.VERSION, FieldKind.NUMBER, FieldKind.TIME)
"""Kinds with an order: < <= > >= apply to them."""
NUMBERS = ("int", "long", "float", "double")


@dataclass(frozen=True)
class Field:
    """A field and its path of keys in a decoded EnrichedReview."""

    name: str
    kind: FieldKind
    path: tuple[str, ...]


@cache
def fields_of(task: str) -> dict[str, Field]:
    """The fields by name. `task` is the task to do again.

    A field of an outcome or lineage without a task before it, such as `status`, is that of `task`.
    A field of the review hides the timing of the same name; both have the same value.
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
    """A hint for a name that is not a field."""
    if name in _parts(schema_of(ENRICHED)):
        return "it has more than one value, and a condition compares single values"
    known = fields_of(task)
    if near := difflib.get_close_matches(name.lower(), known, n=1):
        return f"did you mean {near[0]}?"
    return f"expected one of {', '.join(sorted(field for field in known if '.' not in field))}"


def _kind(path: tuple[str, ...], type_: Any) -> FieldKind | None:
    """None for a type with more than one value."""
    single = _single(type_)
    if isinstance(single, dict):
        if single.get("logicalType") == "timestamp-millis":
            return FieldKind.TIME
        single = single["type"]
    if path == ("language",):
        return FieldKind.LANGUAGE
    if path[0] == "tasks" and path[2:] == ("status",):
        return FieldKind.STATUS
    if single == "string":
        in_lineage = "lineage" in path
        return FieldKind.VERSION if in_lineage and path[-1].endswith("_version") else FieldKind.TEXT
    if single == "boolean":
        return FieldKind.FLAG
    return FieldKind.NUMBER if single in NUMBERS else None


def _single(type_: Any) -> Any:
    """The type without null: the unions of these schemas are of null and one type."""
    if isinstance(type_, list):
        [type_] = [branch for branch in type_ if branch != "null"]
    return type_


def _parts(record: Any) -> dict[str, Any]:
    """The types of a record's fields by name."""
    return {field["name"]: field["type"] for field in _single(record)["fields"]}
