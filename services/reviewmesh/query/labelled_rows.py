"""Labelled rows for a rollout, from JSON lines: texts with their right answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reviewmesh.judge.answers import outcome_of

MOST_ROWS = 5_000
MOST_BYTES = 4 * 1024 * 1024
FORM = {
    "ner": '"entities": [{"start", "end", "label"}]',
    "topic": '"topics": [{"topic"}]',
    "sentiment": '"sentiment"',
}


class RowsProblem(ValueError):
    """A row is invalid; the message names the line, what was expected and what was given."""


def read_labelled(file: Path, task: str) -> list[dict[str, Any]]:
    """Raises RowsProblem, and OSError."""
    rows = list(_rows(file, task))
    if not rows:
        raise RowsProblem(f"{file}: expected labelled rows, found none")
    size = sum(len(row["text"].encode()) for row in rows)
    if len(rows) > MOST_ROWS or size > MOST_BYTES:
        raise RowsProblem(
            f"{file}: expected at most {MOST_ROWS:,} rows with {MOST_BYTES:,} bytes of text, got "
            f"{len(rows):,} with {size:,}; take a sample"
        )
    return rows


def _rows(file: Path, task: str) -> Iterator[dict[str, Any]]:
    # Not splitlines(): it would split at separators inside of a text.
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line), task)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RowsProblem(
                f'{file}, line {number}: expected {{"text", {FORM[task]}}}, got {line[:80]!r}'
            ) from None


def _row(row: Mapping[str, Any], task: str) -> dict[str, Any]:
    if task == "topic":
        fields: dict[str, Any] = {"topics": [{"id": topic["topic"]} for topic in row["topics"]]}
    elif task == "ner":
        fields = {"entities": row["entities"]}
    else:
        fields = {"sentiment": {"label": row["sentiment"]}}
    text, language = row["text"], row.get("language")
    if not isinstance(text, str) or not text or not isinstance(language, str | None):
        raise TypeError
    right = sorted(outcome_of(task, fields))
    if not all(isinstance(label, str) for label in right):
        raise TypeError
    return {"text": text, "language": language, "right": right}
