"""The labelled rows of a data folder: read, checked, and split from dev rows and held-out rows.

Reviews (`reviews_train.jsonl`) have `text`, `topics`, `sentiment`; entity rows (`ner_train.jsonl`)
have `text`, `entities`, `labels_annotated`, `source`. Rows of the dev files, if any, are
never trained on: a row whose text is also in a dev file is left out and counted.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reviewmesh_models.evaluation.rows import Row, read_rows
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import POLARITIES, Task

HELD_OUT_PERCENT: Final = 8
_REVIEWS: Final = "reviews"
_ENTITIES: Final = "ner"
_KIND_OF: Final[Mapping[str, str]] = {NER: _ENTITIES, TOPIC: _REVIEWS, SENTIMENT: _REVIEWS}


class DataError(ValueError):
    """Labelled rows that a task cannot learn from; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one kind."""

    learn: list[Row]
    held_out: list[Row]
    """Neither trained on nor scored: used to fit thresholds and temperatures."""
    in_dev: int
    """How many rows were left out because their text is in a dev file."""


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file that was learned from."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class LanguageData:
    """Rows in other languages; see `training.languages`."""

    reviews: Rows
    originals: Mapping[str, str]
    """By `row`, the sentence that its translations were made of."""
    entities: Rows
    reviews_file: LabelledFile
    entities_file: LabelledFile


@dataclass(frozen=True, slots=True)
class WrittenData:
    """Rows that were written for this project, all to learn from; see `training.written_rows`."""

    reviews: list[Row]
    entities: list[Row]
    file: LabelledFile
    """The folder."""


@dataclass(frozen=True, slots=True)
class LabelledData:
    reviews: Rows
    entities: Rows
    reviews_file: LabelledFile | None
    """None where no task learns from reviews."""
    entities_file: LabelledFile | None
    languages: LanguageData | None = None
    written: WrittenData | None = None

    def of(self, task: str) -> Rows:
        return self.entities if _KIND_OF[task] == _ENTITIES else self.reviews

    def learned_labels(self, task: Task) -> set[str]:
        """The labels that some row to learn from has."""
        rows = list(self.of(task.name).learn)
        if self.languages is not None:
            own = self.languages.entities if task.name == NER else self.languages.reviews
            rows += own.learn
        if self.written is not None:
            rows += self.written.entities if task.name == NER else self.written.reviews
        if task.name == SENTIMENT:
            return {row["sentiment"] for row in rows}
        if task.name == TOPIC:
            # Translations have no topics of their own.
            return {topic["topic"] for row in rows for topic in row.get("topics", ())}
        return {entity["label"] for row in rows for entity in row["entities"]}


def read_data(folder: Path, tasks: Mapping[str, Task]) -> LabelledData:
    """The rows that the tasks learn from. Raises DataError; FileNotFoundError without a file."""
    reviews, reviews_file = _read_kind(folder, _REVIEWS, tasks)
    entities, entities_file = _read_kind(folder, _ENTITIES, tasks)
    return LabelledData(reviews, entities, reviews_file, entities_file)


def check_labels(data: LabelledData, tasks: Mapping[str, Task]) -> None:
    """Raises DataError where a label of a task has no row to learn from."""
    problems = []
    for task in tasks.values():
        learned = data.learned_labels(task)
        if lacking := [label for label in task.label_ids if label not in learned]:
            problems.append(f"{', '.join(lacking)} of the task {task.name}, version {task.version}")
    if problems:
        raise DataError(
            "expected rows to learn each label from, found none for "
            f"{'; '.join(problems)}; label rows with it, or take it out of the task and raise its "
            "version (rows whose text is in a dev file, and those held out, are not learned from)"
        )


def split_held_out(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to learn from and rows to fit thresholds on, by a hash of the text: always the same."""
    learn: list[Row] = []
    held: list[Row] = []
    for row in rows:
        (held if is_held_out(row["text"]) else learn).append(row)
    return learn, held


def is_held_out(key: str) -> bool:
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return digest[0] * 100 < HELD_OUT_PERCENT * 256


def normalised(text: str) -> str:
    """Two texts that differ in letter case, white space or compatible characters are one."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def without_texts_of(rows: Iterable[Row], dev: Collection[Row]) -> list[Row]:
    """The rows whose text is not in the dev rows."""
    scored = {normalised(row["text"]) for row in dev}
    return [row for row in rows if normalised(row["text"]) not in scored]


def _read_kind(
    folder: Path, kind: str, tasks: Mapping[str, Task]
) -> tuple[Rows, LabelledFile | None]:
    learners = [task for name, task in tasks.items() if _KIND_OF[name] == kind]
    if not learners:
        return Rows([], [], 0), None
    file = folder / f"{kind}_train.jsonl"
    rows = _read(file)
    for number, row in enumerate(rows, 1):
        for task in learners:
            _check(task, row, f"{file}, row {number}")
    dev_file = folder / f"{kind}_dev.jsonl"
    apart = without_texts_of(rows, _read(dev_file) if dev_file.is_file() else [])
    learn, held = split_held_out(apart)
    if not learn or not held:
        raise DataError(
            f"{file}: expected rows to learn from and, of each hundred, {HELD_OUT_PERCENT} to fit "
            f"thresholds on; {len(apart)} rows gave {len(learn)} and {len(held)}"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Rows(learn, held, len(rows) - len(apart)), LabelledFile(file.name, digest, len(rows))


def _read(file: Path) -> list[Row]:
    try:
        return read_rows(file)
    except ValueError as error:
        raise DataError(f"{file}: expected JSON lines, {error}") from error


def _check(task: Task, row: Row, where: str) -> None:
    """Raises DataError for a row without an answer of the task."""
    try:
        wrong = _wrong_in(task, row)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{where}: expected the fields of task {task.name}, missing {error}"
        ) from error
    if wrong:
        raise DataError(
            f"{where}: expected labels of task {task.name}, version {task.version} "
            f"({', '.join(task.label_ids)}), found {wrong}"
        )


def _wrong_in(task: Task, row: Row) -> Any:
    if not isinstance(row["text"], str) or not row["text"].strip():
        return "no text"
    if task.answer == "label":
        return row["sentiment"] if row["sentiment"] not in task.label_ids else None
    if task.answer == "polarity_per_label":
        pairs = [(topic["topic"], topic["polarity"]) for topic in row["topics"]]
        return next(
            (pair for pair in pairs if pair[0] not in task.label_ids or pair[1] not in POLARITIES),
            None,
        )
    return misplaced_entity(task, row)


def misplaced_entity(task: Task, row: Row) -> Mapping[str, Any] | None:
    """An entity of another task, or that does not stand where it is said to."""
    return next((e for e in row["entities"] if _misplaced(task, row, e)), None)


def _misplaced(task: Task, row: Row, entity: Mapping[str, Any]) -> bool:
    stands = row["text"][entity["start"] : entity["end"]] == entity["text"]
    return entity["label"] not in task.label_ids or not stands
