"""Evidence about a mean: by hand, over made-up values, and how often it errs."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.judge.evidence import BETS, Observations, log_capital

ALPHA = 0.025


def observed(low: float, **counts: int) -> Observations:
    names = {"minus": -1.0, "zero": 0.0, "plus": 1.0}
    return Observations(low, 1.0, Counter({names[name]: n for name, n in counts.items()}))


def test_the_capital_is_the_mean_over_the_bets_of_their_products() -> None:
    found = math.exp(log_capital(Counter({1.0: 2, 0.0: 1}), bound=0.25, low=0.0))
    by_hand = [(1 + bet * 0.75 / 0.25) ** 2 * (1 - bet) for bet in BETS]
    assert found == pytest.approx(sum(by_hand) / len(BETS))


@given(
    st.floats(0.02, 0.98),
    st.lists(st.sampled_from([0.0, 1.0]), max_size=12),
)
def test_no_bet_gains_on_average_where_the_mean_is_the_bound(
    mean: float, before: list[float]
) -> None:
    """The capital is a martingale: whatever came, the next observation adds nothing expected."""
    counts = Counter(before)
    now = math.exp(log_capital(counts, mean, 0.0))
    won = math.exp(log_capital(counts + Counter([1.0]), mean, 0.0))
    lost = math.exp(log_capital(counts + Counter([0.0]), mean, 0.0))
    assert mean * won + (1 - mean) * lost == pytest.approx(now)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_the_interval_is_what_the_tests_do_not_refute(minus: int, zero: int, plus: int) -> None:
    found = observed(-1.0, minus=minus, zero=zero, plus=plus)
    interval = found.interval(ALPHA)
    assert -1 <= interval.low <= found.mean <= interval.high <= 1
    for bound in (-0.5, -0.1, 0.0, 0.1, 0.5):
        # To the precision of the ends, they say the same.
        if found.shows_above(bound, ALPHA):
            assert interval.low >= bound - 1e-3
        else:
            assert interval.low <= bound + 1e-3
        if found.shows_below(bound, ALPHA):
            assert interval.high <= bound + 1e-3
        else:
            assert interval.high >= bound - 1e-3


def test_more_of_the_same_narrows_the_interval() -> None:
    few = observed(-1.0, minus=5, zero=40, plus=5).interval(ALPHA)
    many = observed(-1.0, minus=500, zero=4000, plus=500).interval(ALPHA)
    assert many.high - many.low < (few.high - few.low) / 4


def test_nothing_observed_shows_nothing() -> None:
    nothing = Observations(-1.0)
    assert not nothing.shows_above(-1.0, ALPHA)
    assert not nothing.shows_above(0.0, ALPHA)
    assert nothing.interval(ALPHA).low == -1.0


def ever_shown(mean: float, number: int, seed: int, bound: float) -> bool:
    """Looks after every tenth observation."""
    chance, found = random.Random(seed), Observations()
    for count in range(1, number + 1):
        found.add(float(chance.random() < mean))
        if count % 10 == 0 and found.shows_above(bound, 0.1):
            return True
    return False


def test_looking_all_the_time_errs_no_more_often_than_alpha() -> None:
    wrong = sum(ever_shown(0.2, 1_000, seed, bound=0.2) for seed in range(200))
    # 200 runs at 10 %: 31 or more would come once in 150 times if alpha held just so.
    assert wrong <= 30


def test_a_mean_above_the_bound_is_found() -> None:
    assert all(ever_shown(0.3, 2_000, seed, bound=0.2) for seed in range(20))
