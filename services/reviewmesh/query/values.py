"""Records as JSON values by their schema, and times as text."""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from reviewmesh.avro.codec import load_schema
from reviewmesh.avro.topics import load_topics

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(milliseconds: int) -> str:
    """ISO 8601, UTC, to the millisecond; the number itself if it is out of range."""
    try:
        moment = EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return str(milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(schema: Any, value: Any, named: dict[str, Any] | None = None) -> Any:
    """A decoded record with timestamps in ISO 8601 and bytes in base64, by its schema."""
    named = {} if named is None else named
    if isinstance(schema, str):
        schema = named.get(schema, schema)
    if isinstance(schema, list):
        filled = [branch for branch in schema if branch != "null"]
        # Every union of the contracts is one type or null.
        return None if value is None else as_json(filled[0], value, named)
    if isinstance(schema, str):
        return _plain_as_json(schema, value)
    if schema["type"] == "record":
        return _record_as_json(schema, value, named)
    if schema["type"] == "array":
        return [as_json(schema["items"], item, named) for item in value]
    if schema["type"] == "map":
        return {key: as_json(schema["values"], item, named) for key, item in value.items()}
    if schema.get("logicalType") == "timestamp-millis":
        shown = iso(value)
        return value if shown == str(value) else shown
    return as_json(schema["type"], value, named)


def _plain_as_json(schema: str, value: Any) -> Any:
    if schema == "bytes":
        return base64.b64encode(value).decode("ascii")
    # JSON has no NaN and no infinity.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _record_as_json(schema: dict[str, Any], value: dict[str, Any], named: dict[str, Any]) -> Any:
    named[schema["name"]] = schema
    if "namespace" in schema:
        named[f"{schema['namespace']}.{schema['name']}"] = schema
    return {
        field["name"]: as_json(field["type"], value[field["name"]], named)
        for field in schema["fields"]
    }


def failed_tasks(record: dict[str, Any]) -> list[str]:
    """The tasks without an answer, with their status."""
    return [
        f"{task} {outcome['status']}"
        for task, outcome in sorted(record["tasks"].items())
        if outcome["status"] not in ("OK", "FALLBACK")
    ]


def schema_of(topic: str) -> dict[str, Any]:
    """The schema of a topic's records."""
    return load_schema(next(item.schema for item in load_topics().topics if item.name == topic))
