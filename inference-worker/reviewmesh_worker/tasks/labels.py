"""The labels of all tasks together, as the heads of one encoder hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import OUTSIDE, POLARITIES, Task


@dataclass(frozen=True, slots=True)
class HeadLabels:
    """The order of each tuple is the order of a head's outputs."""

    entities: tuple[str, ...]
    topics: tuple[str, ...]
    polarities: tuple[str, ...]
    sentiments: tuple[str, ...]

    @property
    def tags(self) -> tuple[str, ...]:
        """BIO: B-x opens an entity of label x and stands at an odd index, I-x follows it."""
        return (OUTSIDE, *(f"{mark}-{label}" for label in self.entities for mark in "BI"))

    def by_task(self) -> dict[str, tuple[str, ...]]:
        return {NER: self.entities, TOPIC: self.topics, SENTIMENT: self.sentiments}


def head_labels(tasks: Mapping[str, Task]) -> HeadLabels:
    return HeadLabels(
        entities=tasks[NER].label_ids,
        topics=tasks[TOPIC].label_ids,
        polarities=POLARITIES,
        sentiments=tasks[SENTIMENT].label_ids,
    )
