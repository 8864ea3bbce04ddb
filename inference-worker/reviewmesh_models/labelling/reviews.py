"""The reviews to label, from JSON lines.

A line is a labelled or unlabelled row (`{"text": …}`) or a record of the enriched topic as
`reviewmesh tail --topic enriched --json` prints it: both have `text`, which is what is asked about.
Rows of gold have labels too: they are asked like any other, and measure how good the teachers are.

A record of a mesh has a `review_id`, and its text stays in the house. What `reviewmesh tail
--leaving REGION` prints says in `leaves_for` which regions its masked text may leave for. A row
without either is the caller's own: whoever gives it decides where it goes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reviewmesh_models.labelling.answers import FIELD
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import POLARITIES, Task


class ReviewsError(ValueError):
    """A line that is no review, or no gold; the message names it and what was expected."""


@dataclass(frozen=True, slots=True)
class Review:
    text: str
    gold: Mapping[str, Any] | None = None
    """The labelled row of a gold review."""
    leaves_for: tuple[str, ...] | None = None
    """Regions that the text of a mesh's review may leave for; None for a row of the caller's."""

    @property
    def key(self) -> str:
        """SHA-256 of the text: the same text is sent once."""
        return request_key(self.text)


def request_key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_reviews(lines: Iterable[str], name: str) -> Iterator[Review]:
    """One per line; empty lines are passed over. Raises ReviewsError."""
    for number, row in _rows(lines, name):
        where = f"{name}, line {number}"
        yield Review(_text(row, where), leaves_for=_leaves_for(row, where))


def _leaves_for(row: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    if "leaves_for" not in row:
        return () if "review_id" in row else None
    regions = row["leaves_for"]
    if not isinstance(regions, list) or not all(isinstance(region, str) for region in regions):
        raise ReviewsError(f"{where}: expected a list of regions in `leaves_for`, got {regions!r}")
    return tuple(regions)


def read_gold(lines: Iterable[str], name: str, tasks: Mapping[str, Task]) -> Iterator[Review]:
    """One per line that has labels of at least one of the tasks. Raises ReviewsError."""
    for number, row in _rows(lines, name):
        where = f"{name}, line {number}"
        text = _text(row, where)
        labelled = [task for task in tasks.values() if row.get(FIELD[task.name]) is not None]
        if not labelled:
            wanted = ", ".join(FIELD[task] for task in tasks)
            raise ReviewsError(f"{where}: expected labels ({wanted}) beside the text, found none")
        for task in labelled:
            if wrong := _wrong_in(task, text, row):
                raise ReviewsError(
                    f"{where}: expected labels of the task {task.name}, version {task.version}, "
                    f"{wrong}"
                )
        fields = {FIELD[task.name]: row[FIELD[task.name]] for task in labelled}
        if NER in tasks and FIELD[NER] in fields:
            fields["labels_annotated"] = row.get("labels_annotated") or tasks[NER].label_ids
        yield Review(text, fields)


def _rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ReviewsError(
                f"{name}, line {number}: expected a line of JSON, {error}"
            ) from error
        if not isinstance(row, dict):
            raise ReviewsError(f"{name}, line {number}: expected an object, got {line[:80]!r}")
        yield number, row


def _text(row: Mapping[str, Any], where: str) -> str:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ReviewsError(f"{where}: expected a review's words in `text`, got {str(text)[:80]!r}")
    return text


def _wrong_in(task: Task, text: str, row: Mapping[str, Any]) -> str:
    """What is invalid in the labels of one task; empty if nothing is."""
    try:
        return _WRONG[task.name](task, text, row[FIELD[task.name]])
    except (KeyError, TypeError, AttributeError) as error:
        return f"got {str(row[FIELD[task.name]])[:80]!r} ({type(error).__name__}: {error})"


def _wrong_sentiment(task: Task, text: str, label: Any) -> str:
    return "" if label in task.label_ids else f"got {label!r}"


def _wrong_topics(task: Task, text: str, topics: Any) -> str:
    for one in topics:
        if one["topic"] not in task.label_ids or one["polarity"] not in POLARITIES:
            return f"got {one}"
    return ""


def _wrong_entities(task: Task, text: str, entities: Any) -> str:
    for one in entities:
        if one["label"] not in task.label_ids or text[one["start"] : one["end"]] != one["text"]:
            return f"got {one}"
    return ""


_WRONG = {SENTIMENT: _wrong_sentiment, TOPIC: _wrong_topics, NER: _wrong_entities}
