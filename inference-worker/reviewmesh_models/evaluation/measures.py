"""The named scores of each task, as measures of the predictions for the rows.

An item that failed is an answer with nothing in it: no label, no topic, no entity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np

from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_models.evaluation.report import Bin, Confusion
from reviewmesh_models.evaluation.rows import DevRows, Row
from reviewmesh_models.evaluation.scores import (
    CALIBRATION_BINS,
    Floats,
    Measure,
    bin_of,
    calibration_error,
    entity_parts,
    hits,
    label_parts,
    macro_f1,
    micro_f1,
    polar_topic_parts,
    polarity_parts,
    share,
    stated_entities,
    stated_sentiments,
    stated_topics,
    topic_parts,
)
from reviewmesh_worker.engines.interface import (
    ItemFailure,
    NerOutput,
    SentimentOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import Task

Outcomes = Mapping[str, Sequence[Outcome]]
"""By task, in the order of the rows that the task is scored on."""
Stated = Sequence[Sequence[tuple[float, bool]]]

NO_ANSWER: Final = ""
_NOTHING: Final = SentimentOutput(NO_ANSWER, {})

OutputT = TypeVar("OutputT", NerOutput, TopicOutput, SentimentOutput)


def measures_of(rows: DevRows, outcomes: Outcomes, tasks: Mapping[str, Task]) -> dict[str, Measure]:
    """Every score of the tasks that were predicted, by `<task>.<score>`."""
    found: dict[str, Measure] = {}
    for task, predicted in outcomes.items():
        own = rows_of(task, rows)
        found |= _MEASURES[task](own, predicted, tasks[task])
        found[f"{task}.calibration_error"] = calibration_error(stated_of(task, own, predicted))
        found[f"{task}.failed"] = share(
            np.array([(isinstance(outcome, ItemFailure), 1) for outcome in predicted], dtype=float)
        )
    return found


def rows_of(task: str, rows: DevRows) -> Sequence[Row]:
    """The rows that a task is scored on."""
    return rows.entities if task == NER else rows.reviews


def label_parts_of(task: Task, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> Floats:
    """(rows, labels, 3) counts of the task's labels."""
    if task.name == NER:
        return entity_parts(rows, outputs_of(outcomes, NerOutput, NerOutput(())), task.label_ids)
    if task.name == TOPIC:
        predicted = outputs_of(outcomes, TopicOutput, TopicOutput(()))
        return topic_parts(rows, predicted, task.label_ids)
    gold = [row["sentiment"] for row in rows]
    return label_parts(gold, predicted_labels(outcomes), task.label_ids)


def stated_of(task: str, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> Stated:
    """Per row the probabilities of its answers, and whether each is right."""
    if task == NER:
        return stated_entities(rows, outputs_of(outcomes, NerOutput, NerOutput(())))
    if task == TOPIC:
        return stated_topics(rows, outputs_of(outcomes, TopicOutput, TopicOutput(())))
    predicted = outputs_of(outcomes, SentimentOutput, _NOTHING)
    return stated_sentiments(
        [row["sentiment"] for row in rows], [one if one.label else None for one in predicted]
    )


def bins_of(stated: Stated) -> list[Bin]:
    """The bins of a calibration error that hold any answer."""
    answers = np.array([answer for row in stated for answer in row], dtype=float).reshape(-1, 2)
    numbers = np.array([bin_of(probability) for probability, _ in answers])
    bins = [answers[numbers == number] for number in range(CALIBRATION_BINS)]
    return [
        Bin(stated=inside[:, 0].mean(), right=inside[:, 1].mean(), answers=len(inside))
        for inside in bins
        if len(inside)
    ]


def confusion_of(rows: Sequence[Row], outcomes: Sequence[Outcome], task: Task) -> Confusion:
    labels = list(task.label_ids)
    pairs = Counter(
        zip((row["sentiment"] for row in rows), predicted_labels(outcomes), strict=True)
    )
    columns = [*labels, NO_ANSWER]
    return Confusion(
        labels=labels, counts=[[pairs[gold, predicted] for predicted in columns] for gold in labels]
    )


def baselines_of(rows: DevRows, tasks: Mapping[str, Task]) -> dict[str, float]:
    """The scores of always answering what is most common in the rows, with probability 1."""
    predicted: dict[str, Sequence[Outcome]] = {}
    for task in tasks:
        own = rows_of(task, rows)
        predicted[task] = [_commonest(task, own)] * len(own)
    return {
        name: measure.value
        for name, measure in measures_of(rows, predicted, tasks).items()
        if not name.endswith((".calibration_error", ".failed"))
    }


def predicted_labels(outcomes: Sequence[Outcome]) -> list[str]:
    """The sentiments; empty for a failure."""
    return [output.label for output in outputs_of(outcomes, SentimentOutput, _NOTHING)]


def outputs_of(outcomes: Sequence[Outcome], kind: type[OutputT], nothing: OutputT) -> list[OutputT]:
    return [outcome if isinstance(outcome, kind) else nothing for outcome in outcomes]


def _commonest(task: str, rows: Sequence[Row]) -> Outcome:
    if task == NER:
        return NerOutput(())
    if task == TOPIC:
        named = Counter((one["topic"], one["polarity"]) for row in rows for one in row["topics"])
        return TopicOutput(tuple(Topic(name, 1.0, p) for (name, p), _ in named.most_common(1)))
    ((label, _),) = Counter(row["sentiment"] for row in rows).most_common(1)
    return SentimentOutput(label, {label: 1.0})


def _sentiment(rows: Sequence[Row], predicted: Sequence[Outcome], task: Task) -> dict[str, Measure]:
    gold = [row["sentiment"] for row in rows]
    return {
        "sentiment.accuracy": share(hits(gold, predicted_labels(predicted))),
        "sentiment.macro_f1": macro_f1(label_parts_of(task, rows, predicted)),
    }


def _topic(rows: Sequence[Row], predicted: Sequence[Outcome], task: Task) -> dict[str, Measure]:
    outputs = outputs_of(predicted, TopicOutput, TopicOutput(()))
    counts = label_parts_of(task, rows, predicted)
    right, polarities = polarity_parts(rows, outputs)
    return {
        "topic.micro_f1": micro_f1(counts),
        "topic.macro_f1": macro_f1(counts),
        "topic.with_polarity_micro_f1": micro_f1(polar_topic_parts(rows, outputs)),
        "topic.polarity_accuracy": share(right),
        "topic.polarity_macro_f1": macro_f1(polarities),
    }


def _ner(rows: Sequence[Row], predicted: Sequence[Outcome], task: Task) -> dict[str, Measure]:
    counts = label_parts_of(task, rows, predicted)
    return {"ner.span_f1": micro_f1(counts), "ner.macro_f1": macro_f1(counts)}


_MEASURES: Final = {SENTIMENT: _sentiment, TOPIC: _topic, NER: _ner}
