"""The ratio of paired costs, against figures worked out by hand and against simulation."""

from __future__ import annotations

import math
import random

import pytest

from bench.pair.interval import ratio


def test_equal_costs_have_a_ratio_of_one_and_no_width() -> None:
    found = ratio([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.middle, found.low, found.high) == (1.0, 1.0, 1.0)


def test_two_pairs_by_hand() -> None:
    found = ratio([1.0, 1.0], [1.0, math.e])
    # Logarithms 0 and 1: mean 0.5, standard error 0.5, t of one degree of freedom 12.706.
    assert found.middle == pytest.approx(math.exp(0.5))
    assert found.low == pytest.approx(math.exp(0.5 - 12.706 * 0.5))
    assert found.high == pytest.approx(math.exp(0.5 + 12.706 * 0.5))


def test_the_interval_holds_the_truth_in_about_95_of_100_cases() -> None:
    draw = random.Random(1)
    held = 0
    for _ in range(2_000):
        before = [draw.lognormvariate(0, 0.1) for _ in range(8)]
        after = [draw.lognormvariate(math.log(1.2), 0.1) for _ in range(8)]
        found = ratio(before, after)
        held += found.low <= 1.2 <= found.high
    assert 0.93 < held / 2_000 < 0.97


@pytest.mark.parametrize(("before", "after"), [([1.0], [1.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_too_few_pairs_are_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="expected two pairs or more"):
        ratio(before, after)
