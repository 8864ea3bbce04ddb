"""What is decided after training, on held-out rows and on the very weights that will serve.

The held-out rows are few, so every setting is drawn towards what holds without them: a bias of
nothing, and one threshold for all topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_worker.engines.encoder.config import Calibration, neutral_calibration
from reviewmesh_worker.engines.encoder.decoding import (
    TextLogits,
    read_entities,
    read_sentiment,
    sigmoid,
)
from reviewmesh_worker.engines.encoder.encoding import EncodedText
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.evaluation.rows import Row
from reviewmesh_worker.evaluation.scores import (
    entity_parts,
    hits,
    label_parts,
    macro_f1,
    micro_f1,
    share,
)
from reviewmesh_worker.tasks.labels import HeadLabels
from reviewmesh_worker.training.dataset import SECOND_STYLE_SOURCE

_TEMPERATURES: Final = np.linspace(0.6, 2.0, 57)
_RARE_BIASES: Final = np.linspace(-0.6, 0.9, 16)
_THRESHOLDS: Final = np.linspace(0.2, 0.7, 51)
_FLOORS: Final = np.linspace(0.1, 0.4, 16)
_OUTSIDE_BIASES: Final = np.linspace(-0.5, 3.5, 33)
_COST_OF_BIAS: Final = 0.01
"""What a bias of one must gain in score to be worth more than none."""
_TOPIC_PRIOR: Final = 300.0
"""A topic with so many held-out rows goes half way from the common threshold to its own best."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out rows with what the model says of them."""

    rows: Sequence[Row]
    encoded: Sequence[EncodedText]
    logits: Sequence[TextLogits]
    labels: HeadLabels


def read_held_out(reader: OnnxReader, rows: Sequence[Row]) -> HeldOut:
    encoded = [reader.encode(row["text"]) for row in rows]
    return HeldOut(rows, encoded, reader.logits(encoded), reader.labels)


def fit(reviews: HeldOut, entities: HeldOut) -> Calibration:
    start = neutral_calibration(reviews.labels)
    biased = replace(start, sentiment_bias=_fit_sentiment_bias(reviews))
    scores, gold = _topic_scores(reviews), _gold_topics(reviews)
    thresholds = _fit_thresholds(scores, gold)
    return replace(
        biased,
        sentiment_temperature=_fit_temperature(reviews, biased),
        topic_thresholds=tuple(thresholds.tolist()),
        topic_floor=_fit_floor(scores, gold, thresholds),
        outside_bias=_fit_outside_bias(entities),
    )


def _fit_sentiment_bias(reviews: HeldOut) -> tuple[float, ...]:
    """Biases of `neutral` and `mixed`: a gain must hold at the neighbouring settings as well."""
    grid = np.array(
        [
            [_sentiment_goal(reviews, neutral, mixed) for mixed in _RARE_BIASES]
            for neutral in _RARE_BIASES
        ]
    )
    cost = _COST_OF_BIAS * np.abs(_RARE_BIASES)
    worth = _smooth(grid) - cost[:, None] - cost[None, :]
    neutral, mixed = np.unravel_index(worth.argmax(), grid.shape)
    return (0.0, 0.0, *(round(float(_RARE_BIASES[at]), 3) for at in (neutral, mixed)))


def _sentiment_goal(reviews: HeldOut, neutral: float, mixed: float) -> float:
    trial = replace(neutral_calibration(reviews.labels), sentiment_bias=(0.0, 0.0, neutral, mixed))
    said = [read_sentiment(logits, reviews.labels, trial).label for logits in reviews.logits]
    gold = [row["sentiment"] for row in reviews.rows]
    counts = label_parts(gold, said, reviews.labels.sentiments)
    return share(hits(gold, said)).value + 0.5 * macro_f1(counts).value


def _smooth(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over each cell and its neighbours."""
    padded = np.pad(grid, 2, mode="edge")
    rows, columns = grid.shape
    shifted = [
        padded[down : down + rows, right : right + columns]
        for down in range(5)
        for right in range(5)
    ]
    out: NDArray[np.float64] = np.mean(shifted, axis=0)
    return out


def _fit_temperature(reviews: HeldOut, biased: Calibration) -> float:
    gold = [row["sentiment"] for row in reviews.rows]

    def surprise(temperature: float) -> float:
        trial = replace(biased, sentiment_temperature=temperature)
        stated = [
            read_sentiment(logits, reviews.labels, trial).scores[label]
            for logits, label in zip(reviews.logits, gold, strict=True)
        ]
        return float(-np.log(np.maximum(stated, 1e-9)).mean())

    return min((float(t) for t in _TEMPERATURES), key=surprise)


def _topic_scores(reviews: HeldOut) -> NDArray[np.float32]:
    return sigmoid(np.stack([logits.topics.max(0) for logits in reviews.logits]))


def _gold_topics(reviews: HeldOut) -> NDArray[np.bool_]:
    said = [{topic["topic"] for topic in row["topics"]} for row in reviews.rows]
    return np.array([[topic in topics for topic in reviews.labels.topics] for topics in said])


def _f1(
    chosen: NDArray[np.bool_],
    gold: NDArray[np.bool_],
) -> float:
    return float(2 * (chosen & gold).sum() / max(chosen.sum() + gold.sum(), 1))


def _fit_thresholds(
    scores: NDArray[np.float32],
    gold: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Per topic, drawn towards a common threshold as far as its rows are few.

    The common one is half of the F1 that can be reached: where scores are probabilities, that is
    what maximises F1, and it is steadier than the top of a flat curve.
    """
    common = max(_f1(scores >= threshold, gold) for threshold in _THRESHOLDS) / 2
    thresholds = np.full(scores.shape[1], common)
    for index in range(scores.shape[1]):
        own = scores[:, index], gold[:, index]
        best = max(_THRESHOLDS, key=lambda threshold: _f1(own[0] >= threshold, own[1]))
        rows = own[1].sum()
        thresholds[index] += (best - common) * rows / (rows + _TOPIC_PRIOR)
    return np.round(thresholds, 3)


def _fit_floor(
    scores: NDArray[np.float32],
    gold: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
) -> float:
    chosen = scores >= thresholds
    likeliest = np.eye(scores.shape[1], dtype=np.bool_)[scores.argmax(1)]
    silent = ~chosen.any(1, keepdims=True)

    def goal(floor: float) -> float:
        return _f1(chosen | (likeliest & silent & (scores >= floor)), gold)

    smooth = _smooth(np.array([[goal(float(floor)) for floor in _FLOORS]]))
    return round(float(_FLOORS[smooth[0].argmax()]), 3)


def _fit_outside_bias(entities: HeldOut) -> float:
    """On rows without account names, whose annotation differs between the sources."""
    kept = [
        at
        for at, row in enumerate(entities.rows)
        if row["source"] != SECOND_STYLE_SOURCE or "@" not in row["text"]
    ]
    rows = [entities.rows[at] for at in kept]
    labels = entities.labels

    def goal(bias: float) -> float:
        trial = replace(neutral_calibration(labels), outside_bias=bias)
        outputs = [
            read_entities(row["text"], entities.encoded[at], entities.logits[at], labels, trial)
            for row, at in zip(rows, kept, strict=True)
        ]
        return micro_f1(entity_parts(rows, outputs, labels.entities)).value

    smooth = _smooth(np.array([[goal(float(bias)) for bias in _OUTSIDE_BIASES]]))
    worth = smooth[0] - _COST_OF_BIAS * np.abs(_OUTSIDE_BIASES)
    return float(_OUTSIDE_BIASES[worth.argmax()])
