"""How records look: as lines of JSON by their schema, and as lines for people."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

SHOWN_TEXT = 72
PIPE_WIDTH = 2_000
MOOD_STYLES = {"positive": "green", "negative": "red", "mixed": "yellow"}

out = Console(soft_wrap=True)
if not out.is_terminal:
    # A file or a pipe has no width: nothing is to be cut there.
    out.width = PIPE_WIDTH
err = Console(stderr=True, soft_wrap=True)


def iso(milliseconds: int) -> str:
    """ISO 8601, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
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
        return base64.b64encode(value).decode("ascii") if schema == "bytes" else value
    if schema["type"] == "record":
        return _record_as_json(schema, value, named)
    if schema["type"] == "array":
        return [as_json(schema["items"], item, named) for item in value]
    if schema["type"] == "map":
        return {key: as_json(schema["values"], item, named) for key, item in value.items()}
    if schema.get("logicalType") == "timestamp-millis":
        return iso(value)
    return as_json(schema["type"], value, named)


def _record_as_json(schema: dict[str, Any], value: dict[str, Any], named: dict[str, Any]) -> Any:
    named[schema["name"]] = schema
    if "namespace" in schema:
        named[f"{schema['namespace']}.{schema['name']}"] = schema
    return {
        field["name"]: as_json(field["type"], value[field["name"]], named)
        for field in schema["fields"]
    }


def enriched_line(record: dict[str, Any]) -> Text:
    """One enriched review in one line: mood, topics, entities, the beginning of its text."""
    mood = record["sentiment"]["label"] if record["sentiment"] else "-"
    line = Text(f"{mood:<9}", style=MOOD_STYLES.get(mood, ""))
    line.append(shortened(record["text"] or ""), style="default")
    for topic in record["topics"]:
        line.append(f"  #{topic['id'].rpartition('.')[2]}", style="cyan")
    for entity in record["entities"]:
        line.append(f"  {shortened(entity['text'], 24)}/{entity['label']}", style="magenta")
    if not record["complete"]:
        line.append("  incomplete: " + ", ".join(failed_tasks(record)), style="red")
    return line


def failed_tasks(record: dict[str, Any]) -> list[str]:
    """The tasks that gave nothing, with their outcome."""
    return [
        f"{task} {outcome['status']}"
        for task, outcome in sorted(record["tasks"].items())
        if outcome["status"] not in ("OK", "FALLBACK")
    ]


def shortened(text: str, limit: int = SHOWN_TEXT) -> str:
    """One line without control or direction marks, which would disturb the terminal."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
