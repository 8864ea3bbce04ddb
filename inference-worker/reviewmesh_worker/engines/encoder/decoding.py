"""Decodes the logits of one whole text into the outputs of its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_worker.engines.encoder.config import EncoderCalibration
from reviewmesh_worker.engines.encoder.encoding import EncodedText, word_starts
from reviewmesh_worker.engines.interface import (
    Entity,
    NerOutput,
    SentimentOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.tasks.labels import HeadLabels

Floats = NDArray[np.float32]

_FORBIDDEN: Final = -1e4
_EDGES: Final = frozenset(' \t\r\n\u00a0\u3000,;:"“”„«»「」『』、，；：。')

_ABBREVIATIONS: Final = frozenset({"bros", "co", "corp", "inc", "jr", "ltd", "sr", "st"})


@dataclass(frozen=True, slots=True)
class TextLogits:
    """The heads' logits for one text, with a row per window."""

    sentiment: Floats
    """(windows, labels)"""
    topics: Floats
    """(windows, topics)"""
    polarities: Floats
    """(windows, topics, polarities)"""
    tags: Floats
    """(tokens, tags), each token from the window that has most context around it"""
    sizes: NDArray[np.int64]
    """(windows,) tokens in each window"""


def read_sentiment(
    logits: TextLogits, labels: HeadLabels, calibration: EncoderCalibration
) -> SentimentOutput:
    """The mean over windows, weighted by their tokens."""
    biased = logits.sentiment + np.array(calibration.sentiment_bias, dtype=np.float32)
    per_window = softmax(biased / calibration.sentiment_temperature)
    weights = np.maximum(logits.sizes, 1)
    mean = np.average(per_window, axis=0, weights=weights)
    scores = {label: float(p) for label, p in zip(labels.sentiments, mean, strict=True)}
    return SentimentOutput(label=labels.sentiments[int(mean.argmax())], scores=scores)


def read_topics(
    logits: TextLogits, labels: HeadLabels, calibration: EncoderCalibration
) -> TopicOutput:
    """A topic's score is its maximum over the windows; its polarity comes from that window."""
    surest = logits.topics.argmax(0)
    scores = sigmoid(logits.topics.max(0))
    chosen = scores >= np.array(calibration.topic_thresholds)
    if not chosen.any():
        chosen[scores.argmax()] = scores.max() >= calibration.topic_floor
    topics = [
        Topic(
            id=labels.topics[index],
            score=float(scores[index]),
            polarity=labels.polarities[int(logits.polarities[surest[index], index].argmax())],
        )
        for index in np.flatnonzero(chosen).tolist()
    ]
    return TopicOutput(tuple(sorted(topics, key=lambda topic: -topic.score)))


def read_entities(
    text: str,
    encoded: EncodedText,
    logits: TextLogits,
    labels: HeadLabels,
    calibration: EncoderCalibration,
) -> NerOutput:
    """Spans of whole words, from the likeliest valid BIO sequence of tags."""
    if not len(encoded):
        return NerOutput(())
    first = np.flatnonzero(word_starts(encoded.words))
    last = np.append(first[1:], len(encoded)) - 1
    spoken = logits.tags[first].copy()
    spoken[:, 0] -= calibration.outside_bias
    probabilities = softmax(spoken)
    spans = _spans(best_tags(np.log(np.maximum(probabilities, 1e-9))))
    entities = (
        _entity(
            text,
            int(encoded.starts[first[begin]]),
            end=int(encoded.ends[last[end - 1]]),
            probabilities=probabilities[begin:end],
            label=labels.entities[label],
            index=label,
        )
        for begin, end, label in spans
    )
    return NerOutput(tuple(entity for entity in entities if entity.text))


def _entity(
    text: str, start: int, end: int, probabilities: Floats, label: str, index: int
) -> Entity:
    start, end = _without_edges(text, start, end)
    score = float((probabilities[:, 1 + 2 * index] + probabilities[:, 2 + 2 * index]).mean())
    return Entity(start=start, end=end, text=text[start:end], label=label, score=score)


def _without_edges(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space, quotes and commas at its ends, which belong to no name."""
    while start < end and text[end - 1] in _EDGES:
        end -= 1
    while start < end and text[start] in _EDGES:
        start += 1
    if text[start:end].endswith(".") and not _is_abbreviation(text[start:end].split()[-1]):
        return _without_edges(text, start, end - 1)
    return start, end


def _is_abbreviation(word: str) -> bool:
    """Whether a full stop belongs to the word: "Inc.", "Ltd.", "U.S.", "J.", and not "Lisbon."."""
    letters = word.rstrip(".")
    return "." in letters or len(letters) == 1 or letters.lower() in _ABBREVIATIONS


def best_tags(log_probabilities: Floats) -> list[int]:
    """Viterbi: the likeliest tags where I-x follows only B-x or I-x."""
    likeliest = log_probabilities.argmax(1)
    if _is_lawful(likeliest):
        # No valid sequence is likelier; most texts end here.
        return [int(tag) for tag in likeliest]
    count = len(log_probabilities)
    transitions = _transitions(log_probabilities.shape[1])
    # The first tag may be any that may follow O.
    best = log_probabilities[0] + transitions[0]
    came_from = np.zeros(log_probabilities.shape, dtype=np.int64)
    for index in range(1, count):
        paths = best[:, None] + transitions
        came_from[index] = paths.argmax(0)
        best = paths.max(0) + log_probabilities[index]
    tags = [int(best.argmax())]
    for index in range(count - 1, 0, -1):
        tags.append(int(came_from[index, tags[-1]]))
    return tags[::-1]


def _is_lawful(tags: NDArray[np.int64]) -> bool:
    before = np.concatenate(([0], tags[:-1]))
    inside = (tags > 0) & (tags % 2 == 0)
    return bool((~inside | (before == tags) | (before == tags - 1)).all())


def _spans(tags: list[int]) -> list[tuple[int, int, int]]:
    """(begin, end, label) of each run of B-x and the I-x after it; B is odd, I even."""
    spans: list[tuple[int, int, int]] = []
    for index, tag in enumerate(tags):
        if tag % 2:
            spans.append((index, index + 1, tag // 2))
        elif tag:
            begin, _, label = spans[-1]
            spans[-1] = (begin, index + 1, label)
    return spans


@cache
def _transitions(tags: int) -> NDArray[np.float32]:
    allowed = np.zeros((tags, tags), dtype=np.float32)
    for inside in range(2, tags, 2):
        allowed[:, inside] = _FORBIDDEN
        allowed[[inside - 1, inside], inside] = 0
    return allowed


def softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    out: Floats = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    return out


def sigmoid(logits: Floats) -> Floats:
    out: Floats = (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).astype(np.float32)
    return out
