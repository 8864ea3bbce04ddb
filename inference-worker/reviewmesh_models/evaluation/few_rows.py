"""Scores of so few rows that they tell nothing: who reads them, and whoever decides, is told."""

from __future__ import annotations

import math
from typing import Final

from reviewmesh_models.evaluation.report import Score

WIDEST: Final = 0.1
"""Of a 95 % interval: wider than this it holds good models and bad ones."""
_NORMAL: Final = 1.96


def interval_of(score: Score) -> tuple[float, float]:
    """The interval of the report, or that of a share of so many rows (Wilson, 1927), whatever is
    wider: resampling rows that are all right finds no spread at all, however few they are."""
    if not score.rows:
        return 0.0, 1.0
    value = min(max(score.value, 0.0), 1.0)
    weight = _NORMAL**2 / score.rows
    middle = (value + weight / 2) / (1 + weight)
    reach = _NORMAL * math.sqrt(value * (1 - value) / score.rows + weight / (4 * score.rows))
    reach /= 1 + weight
    low, high = max(middle - reach, 0.0), min(middle + reach, 1.0)
    if high - low > score.high - score.low:
        return low, high
    return score.low, score.high


def said_of_few(score: Score) -> str:
    """Of a score that decides nothing: of how many rows it is and how wide its interval; else
    empty."""
    low, high = interval_of(score)
    if high - low <= WIDEST:
        return ""
    return (
        f"of {score.rows} rows, 95 % from {low:.3f} to {high:.3f}: {high - low:.2f} wide, which "
        "decides nothing"
    )
