"""Scores golden rows: hard cases in several languages, and texts that ask for a label."""

from __future__ import annotations

from collections.abc import Sequence

from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_models.evaluation.report import Golden, GoldenMiss
from reviewmesh_models.evaluation.rows import Row
from reviewmesh_worker.engines.interface import ItemFailure, NerOutput, TopicOutput
from reviewmesh_worker.tasks import NER, TOPIC
from reviewmesh_worker.tasks.definition import Task

InWords = frozenset[str]
"""An answer as a set of words, or the code of a failure."""


def golden_texts(task: Task) -> list[str]:
    """All texts to predict: each row's own, then the text without its injection."""
    return [row["text"] for row in task.golden] + [row["clean"] for row in _injected(task)]


def judge_golden(task: Task, outcomes: Sequence[Outcome]) -> Golden:
    """`outcomes` are those of `golden_texts`."""
    rows = task.golden
    own = [_in_words(outcome) for outcome in outcomes[: len(rows)]]
    wanted = [_wanted(task.name, row) for row in rows]
    clean = [_in_words(outcome) for outcome in outcomes[len(rows) :]]
    injected = [predicted for predicted, row in zip(own, rows, strict=True) if "clean" in row]
    missed = [
        GoldenMiss(text=row["text"], wanted=_words(gold), got=_words(predicted))
        for row, gold, predicted in zip(rows, wanted, own, strict=True)
        if gold != predicted
    ]
    return Golden(
        rows=len(rows),
        right=len(rows) - len(missed),
        injections=len(injected),
        held=sum(a == b for a, b in zip(injected, clean, strict=True)),
        missed=missed,
    )


def _injected(task: Task) -> list[Row]:
    return [row for row in task.golden if "clean" in row]


def _wanted(task: str, row: Row) -> InWords:
    if task == NER:
        return frozenset(f"{name['label']} {name['text']!r}" for name in row["entities"])
    if task == TOPIC:
        return frozenset(f"{topic['topic']} {topic['polarity']}" for topic in row["topics"])
    return frozenset({row["sentiment"]})


def _in_words(outcome: Outcome) -> InWords:
    if isinstance(outcome, ItemFailure):
        return frozenset({f"failed: {outcome.code}"})
    if isinstance(outcome, NerOutput):
        return frozenset(f"{name.label} {name.text!r}" for name in outcome.entities)
    if isinstance(outcome, TopicOutput):
        return frozenset(f"{topic.id} {topic.polarity}" for topic in outcome.topics)
    return frozenset({outcome.label})


def _words(predicted: InWords) -> str:
    return ", ".join(sorted(predicted)) or "nothing"
