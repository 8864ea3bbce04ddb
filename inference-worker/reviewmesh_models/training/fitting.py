"""Fits calibrations to few held-out rows, for every kind of model.

Since the rows are few, every value is shrunk towards a prior (no bias, one threshold for all
topics), and a gain must hold at neighbouring values as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

TEMPERATURES: Final = np.linspace(0.6, 2.0, 57)
BIASES: Final = np.linspace(-0.6, 0.9, 16)
COST_OF_BIAS: Final = 0.01
"""The gain in score that a bias of 1 needs, to be better than none."""
_THRESHOLDS: Final = np.linspace(0.2, 0.7, 51)
_TOPIC_PRIOR: Final = 300.0
"""A topic with so many held-out rows goes half way from the common threshold to its own best."""
_ROUNDS: Final = 2


def smooth(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over each cell and its neighbours, two on each side."""
    padded = np.pad(grid, 2, mode="edge")
    rows, columns = grid.shape
    shifted = [
        padded[down : down + rows, right : right + columns]
        for down in range(5)
        for right in range(5)
    ]
    out: NDArray[np.float64] = np.mean(shifted, axis=0)
    return out


def best_bias(goal: Callable[[float], float], biases: NDArray[np.float64]) -> float:
    """The bias with the highest smoothed goal, less what a bias costs."""
    values = smooth(np.array([[goal(float(bias)) for bias in biases]]))[0]
    return round(float(biases[(values - COST_OF_BIAS * np.abs(biases)).argmax()]), 3)


def fit_bias(logprobs: NDArray[np.float64], gold: NDArray[np.int64]) -> NDArray[np.float64]:
    """A bias per label, none for the commonest. `logprobs`: (rows, labels), `gold`: (rows,).

    Goal: accuracy and half of the macro F1, so that a rare label is worth finding.
    """
    counts = np.bincount(gold, minlength=logprobs.shape[1])
    bias = np.zeros(logprobs.shape[1])

    def goal_with(label: int) -> Callable[[float], float]:
        def goal(value: float) -> float:
            tried = bias.copy()
            tried[label] = value
            return _label_goal((logprobs + tried).argmax(1), gold, len(counts))

        return goal

    for _ in range(_ROUNDS):
        for label in np.argsort(-counts, kind="stable")[1:].tolist():
            bias[label] = best_bias(goal_with(label), BIASES)
    return bias


def fit_temperature(logprobs: NDArray[np.float64], gold: NDArray[np.int64]) -> float:
    """The temperature with the highest likelihood of the gold labels."""

    def surprise(temperature: float) -> float:
        scaled = logprobs / temperature
        highest = scaled.max(1, keepdims=True)
        whole = highest[:, 0] + np.log(np.exp(scaled - highest).sum(1))
        return float((whole - scaled[np.arange(len(gold)), gold]).mean())

    return min((round(float(t), 3) for t in TEMPERATURES), key=surprise)


def fit_thresholds(scores: NDArray[np.floating], gold: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Per topic, drawn towards a common threshold as far as its rows are few.

    Shapes: (rows, topics). The common one is half of the F1 that can be reached: where scores are
    probabilities, that is what maximises F1 (Lipton, Elkan and Naryanaswamy, 2014), and it is
    steadier than the top of a flat curve.
    """
    common = max(f1(scores >= threshold, gold) for threshold in _THRESHOLDS) / 2
    thresholds = np.full(scores.shape[1], common)
    for index in range(scores.shape[1]):
        own = scores[:, index], gold[:, index]
        best = max(_THRESHOLDS, key=lambda threshold: f1(own[0] >= threshold, own[1]))
        rows = own[1].sum()
        thresholds[index] += (best - common) * rows / (rows + _TOPIC_PRIOR)
    return np.round(thresholds, 3)


def f1(chosen: NDArray[np.bool_], gold: NDArray[np.bool_]) -> float:
    return float(2 * (chosen & gold).sum() / max(chosen.sum() + gold.sum(), 1))


def _label_goal(predicted: NDArray[np.int64], gold: NDArray[np.int64], labels: int) -> float:
    accuracy = float((predicted == gold).mean())
    each = [f1(predicted == label, gold == label) for label in range(labels)]
    return accuracy + 0.5 * float(np.mean(each))
