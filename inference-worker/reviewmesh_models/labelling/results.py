"""The results of a labelling: the consensus of every task, and the files that it is written to.

`reviews_train.jsonl` and `ner_train.jsonl` have the form that `reviewmesh-models train` reads.
`disagreements.jsonl` has the reviews on which teachers differ, those of the highest entropy first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reviewmesh_models.labelling.alpha import NOT_SAID
from reviewmesh_models.labelling.answers import FIELD, Labels, TeacherFailure
from reviewmesh_models.labelling.consensus import (
    LEAST_SURE,
    Consensus,
    consensus_of,
    decided_units,
)
from reviewmesh_models.labelling.decisions import DecidedUnit
from reviewmesh_models.labelling.reviews import Review
from reviewmesh_models.labelling.store import Asked, Store
from reviewmesh_models.labelling.units import labels_from, units_of
from reviewmesh_worker.tasks import NER
from reviewmesh_worker.tasks.definition import Task

REVIEWS_FILE: Final = "reviews_train.jsonl"
ENTITIES_FILE: Final = "ner_train.jsonl"
DISAGREEMENTS_FILE: Final = "disagreements.jsonl"
SOURCE: Final = "teachers"
LEAST_TEACHERS: Final = 2
"""A review with labels from fewer teachers has no consensus."""


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """Of one task, all in the order of the reviews."""

    task: Task
    answers: Sequence[Sequence[Labels | None]]
    """(teachers, reviews)."""
    failures: Sequence[int]
    """(teachers): number of reviews for which each gave no labels."""
    answered: Sequence[bool]
    """(reviews): whether enough teachers gave labels."""
    consensus: Consensus
    labels: Sequence[Labels | None]
    """(reviews): the consensus; None if too few teachers gave labels."""
    sure: Sequence[bool]
    """(reviews): whether every unit is sure enough for training."""


@dataclass(frozen=True, slots=True)
class Labelled:
    reviews: Sequence[Review]
    teachers: Sequence[str]
    tasks: Mapping[str, TaskLabels]


def labelled(
    store: Store, tasks: Mapping[str, Task], decided: Mapping[DecidedUnit, str | None]
) -> Labelled:
    """The answers of the store's teachers, by task.

    `tasks` must have the definitions that the teachers were asked with.
    """
    reviews = store.reviews()
    teachers = store.teachers
    return Labelled(
        reviews,
        list(teachers),
        {
            name: _task_labels(store, tasks[name], reviews, list(teachers.values()), decided)
            for name in store.tasks
        },
    )


def write_results(found: Labelled, folder: Path) -> dict[str, int]:
    """Every file of the labels; returns how many rows each has."""
    written = {}
    reviewed = [task for name, task in found.tasks.items() if name != NER]
    if reviewed:
        written[REVIEWS_FILE] = _write(folder / REVIEWS_FILE, _rows(found, reviewed))
    if NER in found.tasks:
        entities = _entity_rows(found, found.tasks[NER])
        written[ENTITIES_FILE] = _write(folder / ENTITIES_FILE, entities)
    written[DISAGREEMENTS_FILE] = _write(folder / DISAGREEMENTS_FILE, disagreements(found))
    return written


def disagreements(found: Labelled) -> list[Mapping[str, Any]]:
    """A record per review and task with disputed units, highest entropy first; without gold."""
    records = []
    for name, of_task in found.tasks.items():
        consensus = of_task.consensus
        doubt, sure, decided = consensus.doubt, consensus.sure, consensus.decided
        by_review: dict[int, list[int]] = {}
        for unit in to_decide(found, consensus):
            by_review.setdefault(consensus.units.keys[unit][0], []).append(unit)
        for review, units in by_review.items():
            records.append(
                {
                    "task": name,
                    "doubt": round(float(sum(doubt[unit] for unit in units)), 4),
                    "text": found.reviews[review].text,
                    "units": [
                        {
                            "what": consensus.units.keys[unit][1],
                            "said": {
                                teacher: consensus.units.labels[number]
                                for teacher, number in zip(
                                    found.teachers, consensus.units.said[unit], strict=True
                                )
                                if number != NOT_SAID
                            },
                            "consensus": decided[unit],
                            "sure": round(float(sure[unit]), 4),
                        }
                        for unit in units
                    ],
                }
            )
    return sorted(records, key=lambda record: -record["doubt"])


def to_decide(found: Labelled, consensus: Consensus) -> list[int]:
    """Disputed units, highest entropy first; without gold, whose labels are known."""
    keys = consensus.units.keys
    return [unit for unit in consensus.disputed if found.reviews[keys[unit][0]].gold is None]


def _task_labels(
    store: Store,
    task: Task,
    reviews: Sequence[Review],
    identities: Sequence[str],
    decided: Mapping[DecidedUnit, str | None],
) -> TaskLabels:
    kept = [store.answers(Asked(identity, task.name, task.digest)) for identity in identities]
    said = [[of_teacher.get(review.key) for review in reviews] for of_teacher in kept]
    answers = [
        [None if isinstance(one, TeacherFailure) else one for one in of_teacher]
        for of_teacher in said
    ]
    answered = [
        sum(one is not None for one in of_review) >= LEAST_TEACHERS
        for of_review in zip(*answers, strict=True)
    ]
    units = units_of(task, answers)
    numbers = {label: number for number, label in enumerate(units.labels)}
    by_people = {}
    for at, (review, what) in enumerate(units.keys):
        unit = DecidedUnit(task.name, task.digest, reviews[review].key, what)
        if unit in decided:
            label = decided[unit]
            by_people[at] = None if label is None else numbers[label]
    consensus = consensus_of(task, units, by_people)
    chosen = decided_units(consensus)
    sure = [True] * len(reviews)
    for (review, _), share in zip(units.keys, consensus.sure, strict=True):
        sure[review] = sure[review] and bool(share >= LEAST_SURE)
    return TaskLabels(
        task=task,
        answers=answers,
        failures=[
            sum(isinstance(one, TeacherFailure) for one in of_teacher) for of_teacher in said
        ],
        answered=answered,
        consensus=consensus,
        labels=[
            labels_from(task, chosen.get(at, {}), review.text) if enough else None
            for at, (review, enough) in enumerate(zip(reviews, answered, strict=True))
        ],
        sure=sure,
    )


def _rows(found: Labelled, tasks: Sequence[TaskLabels]) -> Iterator[Mapping[str, Any]]:
    for at, review in enumerate(found.reviews):
        labels = [of_task.labels[at] for of_task in tasks if of_task.sure[at]]
        if review.gold is None and len(labels) == len(tasks) and None not in labels:
            row: dict[str, Any] = {"text": review.text}
            for one in labels:
                row |= one or {}
            yield row


def _entity_rows(found: Labelled, ner: TaskLabels) -> Iterator[Mapping[str, Any]]:
    for review, labels, sure in zip(found.reviews, ner.labels, ner.sure, strict=True):
        if review.gold is None and labels is not None and sure:
            yield {
                "text": review.text,
                FIELD[NER]: labels[FIELD[NER]],
                "labels_annotated": list(ner.task.label_ids),
                "source": SOURCE,
            }


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Replaces the file atomically."""
    beside = file.with_name(f"{file.name}.new")
    written = 0
    with beside.open("w", encoding="utf-8") as out:
        for row in rows:
            # In ASCII: a text may contain a lone surrogate.
            out.write(json.dumps(row) + "\n")
            written += 1
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
    return written
