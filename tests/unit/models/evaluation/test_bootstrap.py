"""Intervals of scores: always the same, around the value, narrower with more rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh_models.evaluation.bootstrap import difference_of, percentile_of, score_of
from reviewmesh_models.evaluation.scores import Measure, share

HITS = st.lists(st.booleans(), min_size=2, max_size=60)


def _share(hits: list[bool]) -> Measure:
    return share(np.array([(hit, 1) for hit in hits], dtype=float))


@settings(max_examples=30)
@given(HITS)
def test_an_interval_holds_the_value_and_stays_within_what_can_be(hits: list[bool]) -> None:
    score = score_of(_share(hits))
    assert score == score_of(_share(hits))
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.value == sum(hits) / len(hits)
    assert (score.low == score.high) == (len(set(hits)) == 1)


def test_an_interval_is_that_of_the_normal_distribution_where_rows_are_many() -> None:
    score = score_of(_share([True] * 900 + [False] * 100))
    half = 1.96 * (0.9 * 0.1 / 1000) ** 0.5
    assert score.low == pytest.approx(0.9 - half, abs=0.004)
    assert score.high == pytest.approx(0.9 + half, abs=0.004)


@settings(max_examples=20)
@given(HITS)
def test_who_is_compared_with_itself_differs_in_nothing(hits: list[bool]) -> None:
    difference = difference_of(_share(hits), _share(hits))
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_a_paired_difference_is_surer_than_two_scores() -> None:
    theirs = [row % 3 > 0 for row in range(600)]
    # Right on 12 rows more, wrong on none more.
    ours = [hit or row < 36 for row, hit in enumerate(theirs)]
    difference = difference_of(_share(ours), _share(theirs))
    assert difference.value == pytest.approx(0.02)
    assert difference.low > 0
    assert score_of(_share(ours)).low < score_of(_share(theirs)).high


def test_scores_of_other_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="the same rows, got 3 and 2"):
        difference_of(_share([True] * 3), _share([True] * 2))


def test_a_percentile_of_times() -> None:
    score = percentile_of(np.arange(101, dtype=float), 50)
    assert score.value == 50
    assert 30 < score.low < 50 < score.high < 70
