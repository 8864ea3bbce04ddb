"""Krippendorff's alpha for nominal labels, with bootstrap intervals.

Klaus Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. 1 is full agreement, 0 what
chance would give. Own code, because the library `krippendorff` is under the GPL, and because the
sums are kept per review: the units of a review depend on each other and are resampled together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.evaluation.bootstrap import score_of
from reviewmesh_models.evaluation.report import Score
from reviewmesh_models.evaluation.scores import Floats, Measure

Integers = NDArray[np.int64]

NOT_SAID = -1
"""Instead of a label where a teacher gave none."""


def alpha(said: Integers, review: Integers, reviews: int, labels: int) -> Measure:
    """Of `said` (units, teachers), the labels' numbers; `review` (units) says whose unit it is."""
    counts = label_counts(said, labels).sum(1)
    pairable = counts.sum(1) > 1
    counts, of_review = counts[pairable], review[pairable]
    others = counts.sum(1, keepdims=True) - 1
    agreeing = (counts * (counts - 1) / np.maximum(others, 1)).sum(1)
    parts = np.zeros((reviews, labels + 1))
    np.add.at(parts, of_review, np.column_stack((agreeing, counts)))
    return Measure(parts, _alpha)


def interval_of(measure: Measure) -> Score | None:
    """With a 95 % bootstrap interval over reviews; None if all say one label."""
    sums = measure.parts.sum(0)[1:]
    if np.count_nonzero(sums) < 2:
        return None
    return score_of(measure)


def label_counts(said: Integers, labels: int) -> Floats:
    """(units, teachers, labels): one where the teacher said the label."""
    numbers = np.arange(labels)
    ones: Floats = (said[:, :, None] == numbers).astype(float)
    return ones


def _alpha(sums: Floats) -> Floats:
    agreeing, counts = sums[..., 0], sums[..., 1:]
    values = counts.sum(-1)
    disagreeing = values - agreeing
    by_chance = values**2 - (counts**2).sum(-1)
    # A resample in which all say one label shows no disagreement.
    varied = by_chance > 0
    out: Floats = np.where(
        varied, 1 - (values - 1) * disagreeing / np.where(varied, by_chance, 1), 1.0
    )
    return out
