"""How good outputs are against gold rows; pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from reviewmesh_worker.engines.interface import NerOutput, SentimentOutput, TopicOutput
from reviewmesh_worker.evaluation.rows import Row

_CALIBRATION_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Counts:
    """Right answers, wrong answers, answers missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.right + other.right, self.wrong + other.wrong, self.missed + other.missed
        )

    @property
    def precision(self) -> float:
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.right + self.missed, 1)

    @property
    def f1(self) -> float:
        return 2 * self.right / max(2 * self.right + self.wrong + self.missed, 1)


def compare_sets(gold: set[Any], said: set[Any]) -> Counts:
    return Counts(len(gold & said), len(said - gold), len(gold - said))


def accuracy(gold: Sequence[str], said: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(gold, said, strict=True)) / max(len(gold), 1)


def label_counts(
    gold: Sequence[str], said: Sequence[str], labels: Iterable[str]
) -> dict[str, Counts]:
    pairs = list(zip(gold, said, strict=True))
    return {
        label: Counts(
            right=sum(a == b == label for a, b in pairs),
            wrong=sum(b == label != a for a, b in pairs),
            missed=sum(a == label != b for a, b in pairs),
        )
        for label in labels
    }


def macro_f1(counts: Mapping[str, Counts]) -> float:
    return sum(count.f1 for count in counts.values()) / max(len(counts), 1)


def calibration_error(gold: Sequence[str], said: Sequence[SentimentOutput]) -> float:
    """Expected calibration error: how far what is stated is from how often it is right."""
    stated = np.array([output.scores[output.label] for output in said])
    right = np.array([output.label == label for output, label in zip(said, gold, strict=True)])
    bins = np.minimum((stated * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gaps = [
        abs(stated[bins == number].mean() - right[bins == number].mean()) * (bins == number).sum()
        for number in np.unique(bins)
    ]
    return float(sum(gaps) / max(len(said), 1))


def topic_counts(rows: Sequence[Row], outputs: Sequence[TopicOutput]) -> dict[str, Counts]:
    """Counts per topic; their sum is what micro F1 is of."""
    counts: dict[str, Counts] = {}
    for row, output in zip(rows, outputs, strict=True):
        gold = {topic["topic"] for topic in row["topics"]}
        said = {topic.id for topic in output.topics}
        for topic in gold | said:
            one = compare_sets(gold & {topic}, said & {topic})
            counts[topic] = counts.get(topic, Counts()) + one
    return counts


def entity_counts(
    rows: Sequence[Row], outputs: Sequence[NerOutput]
) -> dict[tuple[str, str], Counts]:
    """Counts per (source, label) of spans that must match exactly.

    What a source never annotates is not counted against the model when it finds it there.
    """
    counts: dict[tuple[str, str], Counts] = {}
    for row, output in zip(rows, outputs, strict=True):
        for label in row["labels_annotated"]:
            gold = {(e["start"], e["end"]) for e in row["entities"] if e["label"] == label}
            said = {(e.start, e.end) for e in output.entities if e.label == label}
            key = (row["source"], label)
            counts[key] = counts.get(key, Counts()) + compare_sets(gold, said)
    return counts


def total(counts: Iterable[Counts]) -> Counts:
    return sum(counts, Counts())
