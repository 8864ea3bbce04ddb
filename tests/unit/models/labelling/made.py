"""A labelling that was made without asking anybody: answers as they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewmesh_models.labelling.reviews import Review
from reviewmesh_models.labelling.store import Asked, Store
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()


def make(
    folder: Path,
    reviews: Sequence[Review],
    answers: Mapping[str, Mapping[str, Sequence[Any]]],
) -> None:
    """`answers` by task and teacher, in the order of the reviews; None where there is none."""
    teachers = {name: f"identity of {name}" for said in answers.values() for name in said}
    with Store(folder) as store:
        store.begin(teachers, {task: TASKS[task].digest for task in answers})
        store.add(reviews)
        for task, said in answers.items():
            for teacher, labels in said.items():
                asked = Asked(teachers[teacher], task, TASKS[task].digest)
                kept = [
                    (review.key, one)
                    for review, one in zip(reviews, labels, strict=True)
                    if one is not None
                ]
                store.keep(asked, kept)


def moods(*labels: str | None) -> list[Any]:
    return [None if label is None else {"sentiment": label} for label in labels]
