"""Splits texts into windows and merges the windows' logits.

A text longer than a window is split into overlapping windows. The tags of its tokens are merged
before they are decoded, so that the edge of a window never cuts an entity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reviewmesh_worker.engines.encoder.config import EncoderCalibration, ModelConfig
from reviewmesh_worker.engines.encoder.decoding import (
    Floats,
    TextLogits,
    read_entities,
    read_sentiment,
    read_topics,
)
from reviewmesh_worker.engines.encoder.encoding import EncodedText
from reviewmesh_worker.engines.interface import (
    NerOutput,
    SentimentOutput,
    TaskOutput,
    TopicOutput,
)
from reviewmesh_worker.tasks import NER, TOPIC
from reviewmesh_worker.tasks.labels import HeadLabels


@dataclass(frozen=True, slots=True)
class TaskOutputs:
    """Every task's output for one text, from one pass."""

    ner: NerOutput
    topic: TopicOutput
    sentiment: SentimentOutput

    def output(self, task: str) -> TaskOutput:
        if task == NER:
            return self.ner
        return self.topic if task == TOPIC else self.sentiment


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `begin` to `end` of the text with that number."""

    text: int
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


def cut(encoded: Sequence[EncodedText], config: ModelConfig) -> list[Window]:
    """The windows of all texts, those of a text one after the other."""
    return [
        Window(number, begin, end)
        for number, text in enumerate(encoded)
        for begin, end in windows_of(len(text), config.window, config.stride)
    ]


def judge(
    text: str,
    encoded: EncodedText,
    logits: TextLogits,
    labels: HeadLabels,
    calibration: EncoderCalibration,
) -> TaskOutputs:
    return TaskOutputs(
        ner=read_entities(text, encoded, logits=logits, labels=labels, calibration=calibration),
        topic=read_topics(logits, labels, calibration),
        sentiment=read_sentiment(logits, labels, calibration),
    )


def windows_of(tokens: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Overlapping ranges that cover all tokens; an empty text has one empty window."""
    begins = range(0, max(tokens - window, 0) + stride, stride)
    ranges = [(begin, min(begin + window, tokens)) for begin in begins]
    return [r for at, r in enumerate(ranges) if at == 0 or ranges[at - 1][1] < tokens]


def gather(
    encoded: Sequence[EncodedText],
    windows: Sequence[Window],
    heads: Sequence[tuple[Floats, ...]],
) -> list[TextLogits]:
    """The logits of each text.

    `heads` has, per window, the logits of sentiment (labels,), topics (topics,), polarities
    (topics, polarities) and tags (2 + tokens or more, tags): the first of these is the special
    token before the window.
    """
    of_text: list[list[int]] = [[] for _ in encoded]
    for at, window in enumerate(windows):
        of_text[window.text].append(at)
    return [
        TextLogits(
            sentiment=np.stack([heads[at][0] for at in own]),
            topics=np.stack([heads[at][1] for at in own]),
            polarities=np.stack([heads[at][2] for at in own]),
            tags=_stitch(len(text), [(windows[at], heads[at][3]) for at in own]),
            sizes=np.array([len(windows[at]) for at in own], dtype=np.int64),
        )
        for text, own in zip(encoded, of_text, strict=True)
    ]


def _stitch(tokens: int, parts: Sequence[tuple[Window, Floats]]) -> Floats:
    """Each token's tags from the window in which it stands farthest from a cut edge."""
    tags = np.zeros((tokens, parts[0][1].shape[-1]), dtype=np.float32)
    margin = np.full(tokens, -1, dtype=np.int64)
    for window, logits in parts:
        here = np.arange(window.begin, window.end)
        own = np.minimum(
            here - window.begin if window.begin else np.full(len(here), tokens),
            window.end - 1 - here if window.end < tokens else np.full(len(here), tokens),
        )
        better: NDArray[np.bool_] = own > margin[here]
        tags[here[better]] = logits[1 : len(here) + 1][better]
        margin[here[better]] = own[better]
    return tags
