"""Labelled rows as JSON lines, checked against the tasks."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import POLARITIES, Task

Row = Mapping[str, Any]

QUICK_ROWS: Final = 200
"""Of a file."""

REVIEWS_FILE: Final = "reviews_dev.jsonl"
ENTITIES_FILE: Final = "ner_dev.jsonl"
TRANSLATED_FILE: Final = "reviews_multilingual_dev.jsonl.gz"
"""Rows with the same `row` are translations of one sentence."""
LANGUAGES_FILE: Final = "ner_multilingual_dev.jsonl.gz"
"""Entities, each row with its `language`."""


class RowsError(ValueError):
    """Rows that cannot be scored; the message names the file, the row and what is wrong."""


@dataclass(frozen=True, slots=True)
class DevRows:
    """What a package is scored on; without rows where none of its tasks is scored on them."""

    reviews: Sequence[Row]
    entities: Sequence[Row]
    digests: Mapping[str, str]
    """SHA-256 of each file that was read, by its name."""
    translated: Sequence[Row] = ()
    entities_by_language: Sequence[Row] = ()

    def count(self, file: str) -> int:
        """Rows of a file that was read."""
        return len(
            {
                REVIEWS_FILE: self.reviews,
                ENTITIES_FILE: self.entities,
                TRANSLATED_FILE: self.translated,
                LANGUAGES_FILE: self.entities_by_language,
            }[file]
        )


def read_rows(file: Path) -> list[Row]:
    if not file.is_file():
        raise FileNotFoundError(f"expected labelled rows in {file}, found no such file")
    if file.suffix == ".gz":
        return parse_rows(gzip.decompress(file.read_bytes()).decode("utf-8"))
    return parse_rows(file.read_text(encoding="utf-8"))


def parse_rows(lines: str) -> list[Row]:
    # Not splitlines(): it would split at separators inside of a text.
    return [json.loads(line) for line in lines.split("\n") if line.strip()]


def read_dev_rows(data: Path, tasks: Mapping[str, Task]) -> DevRows:
    """The dev rows of a folder that the tasks are scored on.

    Those in other languages need not be there.
    Raises FileNotFoundError and RowsError.
    """
    files = [
        name
        for name, scored in ((REVIEWS_FILE, {SENTIMENT, TOPIC}), (ENTITIES_FILE, {NER}))
        if scored & tasks.keys()
    ]
    files += [
        name
        for name, scored in ((TRANSLATED_FILE, {SENTIMENT, TOPIC}), (LANGUAGES_FILE, {NER}))
        if scored & tasks.keys() and (data / name).is_file()
    ]
    rows = {name: _read_checked(data / name, tasks) for name in files}
    return DevRows(
        reviews=rows.get(REVIEWS_FILE, []),
        entities=rows.get(ENTITIES_FILE, []),
        digests={name: _digest(data / name) for name in files},
        translated=rows.get(TRANSLATED_FILE, []),
        entities_by_language=rows.get(LANGUAGES_FILE, []),
    )


def quick_rows(rows: DevRows) -> DevRows:
    """Some of the rows, spread over each file; none in other languages."""
    return replace(
        rows,
        reviews=_spread(rows.reviews),
        entities=_spread(rows.entities),
        translated=(),
        entities_by_language=(),
    )


def _spread(rows: Sequence[Row]) -> Sequence[Row]:
    count = min(len(rows), QUICK_ROWS)
    return [rows[at * len(rows) // count] for at in range(count)]


def language_rows() -> list[Row]:
    """Short reviews in other languages, written for this project."""
    file = resources.files("reviewmesh_models.evaluation") / "languages.jsonl"
    return parse_rows(file.read_text(encoding="utf-8"))


def _digest(file: Path) -> str:
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _read_checked(file: Path, tasks: Mapping[str, Task]) -> list[Row]:
    try:
        rows = read_rows(file)
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise RowsError(f"{file}: expected JSON lines, {error}") from error
    if not rows:
        raise RowsError(f"{file}: expected labelled rows, found none")
    for number, row in enumerate(rows, 1):
        problem = _problem_of(row, file.name, tasks)
        if problem:
            raise RowsError(f"{file}, row {number}: {problem}")
    return rows


def _problem_of(row: Row, name: str, tasks: Mapping[str, Task]) -> str:
    needed = {"text"}
    if name in (ENTITIES_FILE, LANGUAGES_FILE):
        needed |= {"entities", "labels_annotated", "source"}
        needed |= {"language"} if name == LANGUAGES_FILE else set()
    elif name == TRANSLATED_FILE:
        needed |= {"row", "language", "sentiment"}
    else:
        needed |= {"sentiment"} if SENTIMENT in tasks else set()
        needed |= {"topics"} if TOPIC in tasks else set()
    if missing := sorted(needed - row.keys()):
        return f"expected the fields {', '.join(sorted(needed))}, found no {', '.join(missing)}"
    if (
        "sentiment" in needed
        and SENTIMENT in tasks
        and row["sentiment"] not in tasks[SENTIMENT].label_ids
    ):
        return _unknown("sentiment", row["sentiment"], tasks[SENTIMENT])
    for topic in row["topics"] if "topics" in needed else ():
        if topic["topic"] not in tasks[TOPIC].label_ids:
            return _unknown("topic", topic["topic"], tasks[TOPIC])
        if topic["polarity"] not in POLARITIES:
            return f"expected a polarity of {', '.join(POLARITIES)}, found {topic['polarity']!r}"
    return ""


def _unknown(what: str, found: str, task: Task) -> str:
    return (
        f"expected a {what} of version {task.version} of the task {task.name}, found {found!r}; "
        "label the rows for this version, or evaluate with the tasks that they were labelled for"
    )
