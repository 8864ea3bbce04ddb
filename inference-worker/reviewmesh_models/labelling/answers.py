"""A teacher's answer for a text: labels in the form of the labelled rows, or why there are none.

`sentiment`: `{"sentiment"}`; `topic`: `{"topics": [{"topic", "polarity"}]}`; `ner`: `{"entities":
[{"start", "end", "label", "text"}]}` with offsets in code points. Together they are a row that
`reviewmesh-models train` learns from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reviewmesh_worker.engines.interface import (
    Entity,
    NerOutput,
    SentimentOutput,
    TaskOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC

Labels = Mapping[str, Any]
"""The fields of a labelled row that one task fills."""

FIELD: Final[Mapping[str, str]] = {SENTIMENT: "sentiment", TOPIC: "topics", NER: "entities"}


@dataclass(frozen=True, slots=True)
class TeacherFailure:
    """A teacher gave no labels for a text, and would not if asked again."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call cost; money in the currency of the prices."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def labels_of(output: TaskOutput) -> Labels:
    if isinstance(output, SentimentOutput):
        return {"sentiment": output.label}
    if isinstance(output, TopicOutput):
        return {"topics": [{"topic": one.id, "polarity": one.polarity} for one in output.topics]}
    return {
        "entities": [
            {"start": one.start, "end": one.end, "label": one.label, "text": one.text}
            for one in output.entities
        ]
    }


def output_of(task: str, labels: Labels) -> TaskOutput:
    """As an engine would return it, each answer with probability 1."""
    if task == SENTIMENT:
        return SentimentOutput(labels["sentiment"], {labels["sentiment"]: 1.0})
    if task == TOPIC:
        said = labels["topics"]
        return TopicOutput(tuple(Topic(one["topic"], 1.0, one["polarity"]) for one in said))
    return NerOutput(
        tuple(
            Entity(one["start"], one["end"], one["text"], one["label"], 1.0)
            for one in labels["entities"]
        )
    )
