"""How good outputs are against gold rows; pure functions.

Every score is a function of sums over rows. What each row adds is kept apart from that function, so
that a score of resampled rows is one matrix product away (see `bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.evaluation.rows import Row
from reviewmesh_worker.engines.interface import NerOutput, SentimentOutput, TopicOutput
from reviewmesh_worker.tasks.definition import POLARITIES

Floats = NDArray[np.float64]

CALIBRATION_BINS: Final = 10
_COUNTS: Final = 3
"""Right, wrong, missed: the last axis of everything that F1 is made of."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A score and what it is made of.

    `parts` (rows, columns) is what each row adds; `of_sums` takes sums over rows (..., columns) to
    scores (...).
    """

    parts: Floats
    of_sums: Callable[[Floats], Floats]

    @property
    def value(self) -> float:
        return float(self.of_sums(self.parts.sum(0)))

    def of_rows(self, chosen: NDArray[np.bool_]) -> Measure:
        return Measure(self.parts[chosen], self.of_sums)


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """Right answers, wrong answers, answers missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.right + self.missed, 1)

    @property
    def f1(self) -> float:
        return 2 * self.right / max(2 * self.right + self.wrong + self.missed, 1)


def compare_sets(gold: set[Any], predicted: set[Any]) -> AnswerCounts:
    return AnswerCounts(len(gold & predicted), len(predicted - gold), len(gold - predicted))


def share(parts: Floats) -> Measure:
    """`parts` (rows, 2): how many of how many."""
    return Measure(parts, _share)


def micro_f1(counts: Floats) -> Measure:
    """`counts` (rows, labels, 3): F1 of all labels' counts together."""
    return Measure(counts.sum(1), lambda sums: _f1(sums[..., None, :])[..., 0])


def macro_f1(counts: Floats) -> Measure:
    """`counts` (rows, labels, 3): the mean F1 of the labels; one never found counts as zero."""
    rows, labels, _ = counts.shape

    def mean(sums: Floats) -> Floats:
        out: Floats = _f1(sums.reshape(*sums.shape[:-1], labels, _COUNTS)).mean(-1)
        return out

    return Measure(counts.reshape(rows, labels * _COUNTS), mean)


def calibration_error(stated: Sequence[Sequence[tuple[float, bool]]]) -> Measure:
    """Expected calibration error: how far what is stated is from how often it is right.

    `stated` has for each row the answers with a probability, and whether each is right. Ten bins of
    equal width (Naeini et al., 2015).
    """
    gaps = np.zeros((len(stated), CALIBRATION_BINS + 1))
    for row, answers in enumerate(stated):
        for probability, right in answers:
            gaps[row, bin_of(probability)] += probability - right
            gaps[row, -1] += 1

    def error(sums: Floats) -> Floats:
        out: Floats = np.abs(sums[..., :-1]).sum(-1) / np.maximum(sums[..., -1], 1)
        return out

    return Measure(gaps, error)


def bin_of(probability: float) -> int:
    return min(int(probability * CALIBRATION_BINS), CALIBRATION_BINS - 1)


def label_parts(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Floats:
    """(rows, labels, 3) counts of one label per row; a prediction may be none of the labels."""
    counts = np.zeros((len(gold), len(labels), _COUNTS))
    for row, (wanted, got) in enumerate(zip(gold, predicted, strict=True)):
        _count(counts[row], labels, {wanted}, {got})
    return counts


def hits(gold: Sequence[str], predicted: Sequence[str]) -> Floats:
    """(rows, 2): right or not, of one."""
    return np.array([(a == b, 1) for a, b in zip(gold, predicted, strict=True)], float).reshape(
        -1, 2
    )


def topic_parts(
    rows: Sequence[Row], outputs: Sequence[TopicOutput], topics: Sequence[str]
) -> Floats:
    """(rows, topics, 3) counts of the topics that a row has."""
    counts = np.zeros((len(rows), len(topics), _COUNTS))
    for number, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        gold = {topic["topic"] for topic in row["topics"]}
        _count(counts[number], topics, gold, {topic.id for topic in output.topics})
    return counts


def polar_topic_parts(rows: Sequence[Row], outputs: Sequence[TopicOutput]) -> Floats:
    """(rows, 1, 3) counts of topics together with their polarity."""
    counts = np.zeros((len(rows), 1, _COUNTS))
    for number, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        gold = {(topic["topic"], topic["polarity"]) for topic in row["topics"]}
        one = compare_sets(gold, {(topic.id, topic.polarity) for topic in output.topics})
        counts[number, 0] = one.right, one.wrong, one.missed
    return counts


def polarity_parts(rows: Sequence[Row], outputs: Sequence[TopicOutput]) -> tuple[Floats, Floats]:
    """Polarities of the topics that a row has and that were found.

    (rows, 2) right of how many, and (rows, polarities, 3) counts.
    """
    right = np.zeros((len(rows), 2))
    counts = np.zeros((len(rows), len(POLARITIES), _COUNTS))
    for number, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        found = {topic.id: topic.polarity for topic in output.topics}
        for topic in row["topics"]:
            if topic["topic"] in found:
                gold, predicted = topic["polarity"], found[topic["topic"]]
                right[number] += (gold == predicted, 1)
                _count(counts[number], POLARITIES, {gold}, {predicted})
    return right, counts


def entity_parts(
    rows: Sequence[Row], outputs: Sequence[NerOutput], labels: Sequence[str]
) -> Floats:
    """(rows, labels, 3) counts of spans that must match exactly.

    What a source never annotates is not counted against the model when it finds it there.
    """
    counts = np.zeros((len(rows), len(labels), _COUNTS))
    for number, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        for at, label in enumerate(labels):
            if label in row["labels_annotated"]:
                one = compare_sets(gold_spans(row, label), predicted_spans(output, label))
                counts[number, at] = one.right, one.wrong, one.missed
    return counts


def gold_spans(row: Row, label: str) -> set[tuple[int, int]]:
    return {(e["start"], e["end"]) for e in row["entities"] if e["label"] == label}


def predicted_spans(output: NerOutput, label: str) -> set[tuple[int, int]]:
    return {(e.start, e.end) for e in output.entities if e.label == label}


def counts_of(parts: Floats) -> list[AnswerCounts]:
    """One per label, of (rows, labels, 3)."""
    return [AnswerCounts(*(int(number) for number in label)) for label in parts.sum(0)]


def stated_sentiments(
    gold: Sequence[str], predicted: Sequence[SentimentOutput | None]
) -> list[list[tuple[float, bool]]]:
    """The probability of each predicted label and whether it is right; none for a failure."""
    return [
        [] if output is None else [(output.scores[output.label], output.label == label)]
        for label, output in zip(gold, predicted, strict=True)
    ]


def stated_topics(
    rows: Sequence[Row], outputs: Sequence[TopicOutput]
) -> list[list[tuple[float, bool]]]:
    """The probability of each predicted topic and whether it is right; others have none."""
    stated = []
    for row, output in zip(rows, outputs, strict=True):
        gold = {topic["topic"] for topic in row["topics"]}
        stated.append([(topic.score, topic.id in gold) for topic in output.topics])
    return stated


def stated_entities(
    rows: Sequence[Row], outputs: Sequence[NerOutput]
) -> list[list[tuple[float, bool]]]:
    """The probability of each predicted span, of the labels that its source annotates."""
    return [
        [
            (entity.score, (entity.start, entity.end) in gold_spans(row, entity.label))
            for entity in output.entities
            if entity.label in row["labels_annotated"]
        ]
        for row, output in zip(rows, outputs, strict=True)
    ]


def _count(into: Floats, labels: Sequence[str], gold: set[str], predicted: set[str]) -> None:
    for at, label in enumerate(labels):
        if label in gold:
            into[at, 0 if label in predicted else 2] += 1
        elif label in predicted:
            into[at, 1] += 1


def _f1(counts: Floats) -> Floats:
    right, wrong, missed = counts[..., 0], counts[..., 1], counts[..., 2]
    out: Floats = 2 * right / np.maximum(2 * right + wrong + missed, 1)
    return out


def _share(sums: Floats) -> Floats:
    out: Floats = sums[..., 0] / np.maximum(sums[..., 1], 1)
    return out
