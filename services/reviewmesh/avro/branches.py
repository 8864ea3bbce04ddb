"""Says which branch of a union a record is of.

Without that, fastavro validates the whole record against each branch before it writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Naming = Callable[[Any], Any]


def naming_of(schema: Any) -> Naming | None:
    """A function that puts (name, record) in place of each record of a union with null.

    `schema` is parsed by fastavro. None where no value has such a record in it.
    """
    if isinstance(schema, list):
        return _of_union(schema)
    if not isinstance(schema, dict):
        return None
    kind = schema["type"]
    if kind == "record":
        return _of_record(schema)
    if kind == "array" and (inner := naming_of(schema["items"])) is not None:
        return _of_items(inner)
    if kind == "map" and (inner := naming_of(schema["values"])) is not None:
        return _of_values(inner)
    return None


def _of_union(branches: list[Any]) -> Naming | None:
    records = [one for one in branches if isinstance(one, dict) and one["type"] == "record"]
    if len(records) != 1 or len(branches) != 2 or "null" not in branches:
        return None
    [record] = records
    name, inner = record["name"], _of_record(record)
    if inner is None:
        return lambda value: None if value is None else (name, value)
    return lambda value: None if value is None else (name, inner(value))


def _of_record(schema: dict[str, Any]) -> Naming | None:
    found = {field["name"]: naming_of(field["type"]) for field in schema["fields"]}
    fields = [(name, naming) for name, naming in found.items() if naming is not None]
    if not fields:
        return None

    def named(record: dict[str, Any]) -> dict[str, Any]:
        # One that is missing has its default.
        return {
            **record,
            **{name: naming(record[name]) for name, naming in fields if name in record},
        }

    return named


def _of_items(inner: Naming) -> Naming:
    return lambda items: [inner(item) for item in items]


def _of_values(inner: Naming) -> Naming:
    return lambda values: {key: inner(value) for key, value in values.items()}
