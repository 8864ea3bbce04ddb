"""Checks that every reader can represent the numbers in records that the mesh may not have written.

Python has no year 10000, and JavaScript no exact whole number beyond 2^53.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reviewmesh.clock import plausible_ms

LARGEST = 2**53 - 1
NUMBERS = ("int", "long")
TIMESTAMP = "timestamp-millis"

ValueCheck = Callable[[str, Any], str]
"""(field name, value) -> what is wrong, empty when nothing is."""


def check_of(schema: Any) -> ValueCheck | None:
    """The check for values of one of our schemas; None where nothing needs one."""
    return _check_of(schema, {})


def _check_of(schema: Any, named: dict[str, ValueCheck | None]) -> ValueCheck | None:
    """`named`: the checks of the records before it, to which a field may refer by name."""
    if isinstance(schema, list):
        return _union([branch for branch in schema if branch != "null"], named)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, (dict, list)):
        return _check_of(kind, named)
    if kind in named:
        return named[kind]
    if kind == "record":
        named[schema["name"]] = found = _record(schema, named)
        return found
    if kind in ("array", "map"):
        return _collection(schema.get("items", schema.get("values")), kind == "map", named)
    if kind in NUMBERS:
        is_time = isinstance(schema, dict) and schema.get("logicalType") == TIMESTAMP
        return _time if is_time else _number
    return None


def _time(name: str, value: int) -> str:
    if plausible_ms(value):
        return ""
    return f"expected {name} in milliseconds since 1970, up to the year 9999, got {value}"


def _number(name: str, value: int) -> str:
    if -LARGEST <= value <= LARGEST:
        return ""
    return f"expected {name} between -(2^53 - 1) and 2^53 - 1, got {value}"


def _union(branches: list[Any], named: dict[str, ValueCheck | None]) -> ValueCheck | None:
    if len(branches) != 1:
        return None
    inner = _check_of(branches[0], named)
    if inner is None:
        return None
    return lambda name, value: "" if value is None else inner(name, value)


def _record(schema: Any, named: dict[str, ValueCheck | None]) -> ValueCheck | None:
    found = [(field["name"], _check_of(field["type"], named)) for field in schema["fields"]]
    checks = [(name, check) for name, check in found if check is not None]

    def check(name: str, value: Any) -> str:
        for field, inner in checks:
            if problem := inner(f"{name}.{field}" if name else field, value[field]):
                return problem
        return ""

    return check if checks else None


def _collection(items: Any, is_map: bool, named: dict[str, ValueCheck | None]) -> ValueCheck | None:
    inner = _check_of(items, named)
    if inner is None:
        return None

    def check(name: str, value: Any) -> str:
        for item in value.values() if is_map else value:
            if problem := inner(name, item):
                return problem
        return ""

    return check
