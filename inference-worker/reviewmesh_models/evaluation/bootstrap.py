"""95 % intervals of scores, from resampled rows.

The percentile bootstrap (Efron & Tibshirani, 1993): rows are resampled with replacement, as many as
there are, and the score of each sample is computed. Two packages are compared on the same samples,
so that the difficulty of a row for both cancels out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.evaluation.report import Difference, Score
from reviewmesh_models.evaluation.scores import Measure

DRAWS: Final = 1000
_SEED: Final = 7
_TAILS: Final = (2.5, 97.5)

Drawn = NDArray[np.floating]


def score_of(measure: Measure) -> Score:
    low, high = _tails(_drawn(measure))
    return Score(value=measure.value, low=low, high=high, rows=len(measure.parts))


def difference_of(ours: Measure, theirs: Measure) -> Difference:
    """Our score minus theirs, for the same rows in the same order."""
    if len(ours.parts) != len(theirs.parts):
        raise ValueError(
            f"expected scores of the same rows, got {len(ours.parts)} and {len(theirs.parts)}"
        )
    low, high = _tails(_drawn(ours) - _drawn(theirs))
    return Difference(value=ours.value - theirs.value, low=low, high=high)


def percentile_of(samples: NDArray[np.float64], percentile: float) -> Score:
    """A percentile of measured times."""
    chosen = np.random.default_rng(_SEED).integers(0, len(samples), (DRAWS, len(samples)))
    low, high = _tails(np.percentile(samples[chosen], percentile, axis=1))
    value = float(np.percentile(samples, percentile))
    return Score(value=value, low=low, high=high, rows=len(samples))


def _drawn(measure: Measure) -> Drawn:
    """The score of each sample. Single precision halves the memory and does not affect
    intervals."""
    sums = _weights(len(measure.parts)) @ measure.parts.astype(np.float32)
    return measure.of_sums(sums.astype(np.float64))


def _tails(drawn: Drawn) -> tuple[float, float]:
    low, high = np.percentile(drawn, _TAILS)
    return float(low), float(high)


# Most scores are of all rows; slices come and go.
@lru_cache(maxsize=4)
def _weights(rows: int) -> NDArray[np.float32]:
    """(draws, rows) how often each row was drawn: the same for all scores of so many rows."""
    chosen = np.random.default_rng(_SEED).integers(0, rows, (DRAWS, rows))
    flat = (chosen + np.arange(DRAWS)[:, None] * rows).ravel()
    counts = np.bincount(flat, minlength=DRAWS * rows).reshape(DRAWS, rows)
    return counts.astype(np.float32)
