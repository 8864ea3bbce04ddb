"""Two packages for different versions of a task, scored on the labels that both know.

A package cannot give a label that its version has not. Held against one that can, it would lose by
the new label alone, and what became worse about the others would not show.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from reviewmesh_models.evaluation.measures import measures_of, rows_of
from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_models.evaluation.rows import DevRows, Row
from reviewmesh_models.evaluation.scores import Measure
from reviewmesh_worker.engines.interface import NerOutput, TopicOutput
from reviewmesh_worker.tasks import NER, TOPIC
from reviewmesh_worker.tasks.definition import Task


def measures_on(
    labels: Collection[str], task: Task, rows: DevRows, outcomes: Sequence[Outcome]
) -> dict[str, Measure]:
    """As `measures_of`, as if there were these labels only; reviews of another sentiment are left
    out."""
    own = rows_of(task.name, rows)
    said = [
        (_with(labels, task.name, row), _answer_with(labels, outcome))
        for row, outcome in zip(own, outcomes, strict=True)
        if task.name in (NER, TOPIC) or row["sentiment"] in labels
    ]
    kept = [row for row, _ in said]
    narrowed = replace(task, labels=tuple(label for label in task.labels if label.id in labels))
    return measures_of(
        replace(rows, entities=kept) if task.name == NER else replace(rows, reviews=kept),
        {task.name: [outcome for _, outcome in said]},
        {task.name: narrowed},
    )


def _with(labels: Collection[str], task: str, row: Row) -> Row:
    if task == NER:
        return {**row, "entities": [one for one in row["entities"] if one["label"] in labels]}
    if task == TOPIC:
        return {**row, "topics": [one for one in row["topics"] if one["topic"] in labels]}
    return row


def _answer_with(labels: Collection[str], outcome: Outcome) -> Outcome:
    if isinstance(outcome, NerOutput):
        return NerOutput(tuple(one for one in outcome.entities if one.label in labels))
    if isinstance(outcome, TopicOutput):
        return TopicOutput(tuple(one for one in outcome.topics if one.id in labels))
    return outcome
