"""What an answer says, as values that can be counted: labels, and scores in tenths. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from reviewmesh_worker.engines.interface import (
    ItemFailure,
    SentimentOutput,
    TaskOutput,
    TopicOutput,
)

LABEL: Final = "label"
SCORE: Final = "score"
LANGUAGE: Final = "language"
NONE: Final = "none"
"""The label of an answer without a topic, or without a name."""
TENTHS: Final = tuple(f"0.{tenth}" for tenth in range(10))
"""A score by the lower end of its tenth; 1 is in the last one."""


def values_of(outcome: TaskOutput | ItemFailure) -> Iterator[tuple[str, str]]:
    """Pairs of LABEL or SCORE with a value; nothing for a failure."""
    if isinstance(outcome, ItemFailure):
        return
    if isinstance(outcome, SentimentOutput):
        said = [(outcome.label, outcome.scores.get(outcome.label, -1.0))]
    elif isinstance(outcome, TopicOutput):
        said = [(topic.id, topic.score) for topic in outcome.topics]
    else:
        said = [(entity.label, entity.score) for entity in outcome.entities]
    if not said:
        yield LABEL, NONE
    for label, score in said:
        yield LABEL, label
        if 0 <= score <= 1:
            yield SCORE, TENTHS[min(int(score * 10), 9)]
