"""Answers cut into units: the smallest things that teachers can agree or disagree on.

`sentiment`: a unit is a review, its label one of the task's. `topic`: a unit is a topic of a
review, its label `none`, `positive`, `negative` or `neutral`, so a review has as many units as the
taxonomy has topics, and leaving a topic out is saying `none`. `ner`: a unit is a span that at least
one teacher names with just these bounds, its label one of the task's or `none`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reviewmesh_models.labelling.alpha import NOT_SAID, Integers
from reviewmesh_models.labelling.answers import Labels
from reviewmesh_worker.tasks.definition import NO_POLARITY, POLARITIES, Task

Answers = Sequence[Labels | None]
"""Of one teacher, in the order of the reviews; None where it gave no labels."""
Span = tuple[int, int]
UnitKey = tuple[int, str | Span | None]
"""Which review, and what of it: a topic, a span, or None for the review as a whole."""

NO_NAME: Final = "none"


@dataclass(frozen=True, slots=True)
class Units:
    labels: tuple[str, ...]
    """What may be said of each unit."""
    keys: tuple[UnitKey, ...]
    said: Integers
    """(units, teachers): numbers of labels, `NOT_SAID` where a teacher gave none."""

    @property
    def review(self) -> Integers:
        """(units): whose unit it is."""
        return np.array([review for review, _ in self.keys], dtype=np.int64)


def units_of(task: Task, answers: Sequence[Answers]) -> Units:
    """Of all reviews; `answers` has those of each teacher."""
    labels = labels_of_units(task)
    numbers = {label: number for number, label in enumerate(labels)}
    spoken = [[_said(task, labels) for labels in of_teacher] for of_teacher in answers]
    reviews = len(answers[0]) if answers else 0
    keys: list[UnitKey] = []
    said: list[list[int]] = []
    for review in range(reviews):
        of_review = [of_teacher[review] for of_teacher in spoken]
        for what in _whats(task, of_review):
            keys.append((review, what))
            said.append(
                [
                    NOT_SAID if one is None else numbers[one.get(what, labels[-1])]
                    for one in of_review
                ]
            )
    return Units(labels, tuple(keys), np.array(said, dtype=np.int64).reshape(-1, len(answers)))


def labels_of_units(task: Task) -> tuple[str, ...]:
    """The last one means that nothing was said, if the task has such a label."""
    if task.answer == "label":
        return task.label_ids
    if task.answer == "polarity_per_label":
        return (*POLARITIES, NO_POLARITY)
    return (*task.label_ids, NO_NAME)


def labels_from(task: Task, said: Mapping[str | Span | None, str], text: str) -> Labels:
    """The labels of one review, from those of its units."""
    if task.answer == "label":
        return {"sentiment": said[None]}
    if task.answer == "polarity_per_label":
        return {
            "topics": [
                {"topic": label, "polarity": said[label]}
                for label in task.label_ids
                if said.get(label, NO_POLARITY) != NO_POLARITY
            ]
        }
    spans = sorted(
        (what, label)
        for what, label in said.items()
        if isinstance(what, tuple) and label != NO_NAME
    )
    return {
        "entities": [
            {"start": start, "end": end, "label": label, "text": text[start:end]}
            for (start, end), label in spans
        ]
    }


def _said(task: Task, labels: Labels | None) -> Mapping[str | Span | None, str] | None:
    if labels is None:
        return None
    if task.answer == "label":
        return {None: labels["sentiment"]}
    if task.answer == "polarity_per_label":
        return {one["topic"]: one["polarity"] for one in labels["topics"]}
    return {(one["start"], one["end"]): one["label"] for one in labels["entities"]}


def _whats(
    task: Task, of_review: Sequence[Mapping[str | Span | None, str] | None]
) -> Sequence[str | Span | None]:
    if task.answer == "label":
        return [None]
    if task.answer == "polarity_per_label":
        return task.label_ids
    spans = {what for said in of_review for what in said or () if isinstance(what, tuple)}
    return sorted(spans)
