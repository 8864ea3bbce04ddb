"""Fits the calibration after training, on held-out rows and the exported weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.evaluation.rows import Row
from reviewmesh_models.evaluation.scores import (
    entity_parts,
    hits,
    label_parts,
    macro_f1,
    micro_f1,
    share,
)
from reviewmesh_models.training.encoder.dataset import SECOND_STYLE_SOURCE
from reviewmesh_models.training.fitting import (
    BIASES,
    COST_OF_BIAS,
    TEMPERATURES,
    best_bias,
    f1,
    fit_thresholds,
    smooth,
)
from reviewmesh_worker.engines.encoder.config import EncoderCalibration, neutral_encoder_calibration
from reviewmesh_worker.engines.encoder.decoding import (
    TextLogits,
    read_entities,
    read_sentiment,
    sigmoid,
)
from reviewmesh_worker.engines.encoder.encoding import EncodedText
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.tasks.labels import HeadLabels

_FLOORS: Final = np.linspace(0.1, 0.4, 16)
_OUTSIDE_BIASES: Final = np.linspace(-0.5, 3.5, 33)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out rows with the model's outputs."""

    rows: Sequence[Row]
    encoded: Sequence[EncodedText]
    logits: Sequence[TextLogits]
    labels: HeadLabels


def read_held_out(reader: OnnxReader, rows: Sequence[Row]) -> HeldOut:
    encoded = [reader.encode(row["text"]) for row in rows]
    return HeldOut(rows, encoded, reader.logits(encoded), reader.labels)


def fit_calibration(reviews: HeldOut, translated: HeldOut, entities: HeldOut) -> EncoderCalibration:
    """`translated` have a sentiment and no topics; there may be none."""
    start = neutral_encoder_calibration(reviews.labels)
    biased = replace(start, sentiment_bias=_fit_sentiment_bias(reviews))
    scores = sigmoid(np.stack([logits.topics.max(0) for logits in reviews.logits]))
    named = [{topic["topic"] for topic in row["topics"]} for row in reviews.rows]
    gold = np.array([[topic in topics for topic in reviews.labels.topics] for topics in named])
    thresholds = fit_thresholds(scores, gold)
    return replace(
        biased,
        sentiment_temperature=_fit_temperature([reviews, translated], biased),
        topic_thresholds=tuple(thresholds.tolist()),
        topic_floor=_fit_floor(scores, gold, thresholds),
        outside_bias=_fit_outside_bias(entities),
    )


def _fit_sentiment_bias(reviews: HeldOut) -> tuple[float, ...]:
    """Biases of `neutral` and `mixed`: a gain must hold at the neighbouring settings as well."""
    grid = np.array(
        [[_sentiment_goal(reviews, neutral, mixed) for mixed in BIASES] for neutral in BIASES]
    )
    cost = COST_OF_BIAS * np.abs(BIASES)
    worth = smooth(grid) - cost[:, None] - cost[None, :]
    neutral, mixed = np.unravel_index(worth.argmax(), grid.shape)
    return (0.0, 0.0, *(round(float(BIASES[at]), 3) for at in (neutral, mixed)))


def _sentiment_goal(reviews: HeldOut, neutral: float, mixed: float) -> float:
    trial = replace(
        neutral_encoder_calibration(reviews.labels), sentiment_bias=(0.0, 0.0, neutral, mixed)
    )
    predicted = [read_sentiment(logits, reviews.labels, trial).label for logits in reviews.logits]
    gold = [row["sentiment"] for row in reviews.rows]
    counts = label_parts(gold, predicted, reviews.labels.sentiments)
    return share(hits(gold, predicted)).value + 0.5 * macro_f1(counts).value


def _fit_temperature(kinds: Sequence[HeldOut], biased: EncoderCalibration) -> float:
    """Each kind of rows counts the same, however many there are: they differ in how often their
    labels can be foreseen."""

    def surprise(temperature: float) -> float:
        trial = replace(biased, sentiment_temperature=temperature)
        return sum(_surprise(rows, trial) for rows in kinds if rows.rows)

    return min((round(float(t), 3) for t in TEMPERATURES), key=surprise)


def _surprise(reviews: HeldOut, calibration: EncoderCalibration) -> float:
    stated = [
        read_sentiment(logits, reviews.labels, calibration).scores[row["sentiment"]]
        for logits, row in zip(reviews.logits, reviews.rows, strict=True)
    ]
    return float(-np.log(np.maximum(stated, 1e-9)).mean())


def _fit_floor(
    scores: NDArray[np.float32],
    gold: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
) -> float:
    chosen = scores >= thresholds
    likeliest = np.eye(scores.shape[1], dtype=np.bool_)[scores.argmax(1)]
    silent = ~chosen.any(1, keepdims=True)

    def goal(floor: float) -> float:
        return f1(chosen | (likeliest & silent & (scores >= floor)), gold)

    steady = smooth(np.array([[goal(float(floor)) for floor in _FLOORS]]))
    return round(float(_FLOORS[steady[0].argmax()]), 3)


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
        trial = replace(neutral_encoder_calibration(labels), outside_bias=bias)
        outputs = [
            read_entities(
                row["text"],
                entities.encoded[at],
                logits=entities.logits[at],
                labels=labels,
                calibration=trial,
            )
            for row, at in zip(rows, kept, strict=True)
        ]
        return micro_f1(entity_parts(rows, outputs, labels.entities)).value

    return best_bias(goal, _OUTSIDE_BIASES)
