"""The simulated rollouts, a few of them, and the arithmetic beside them."""

from __future__ import annotations

import pytest

from bench.rollouts.__main__ import fixed_sample, quantile, upper_bound
from bench.rollouts.simulated import Models, pairs_until_found, rolled_out
from reviewmesh.judge.bounds import Bounds


def test_a_candidate_that_is_no_worse_is_promoted() -> None:
    assert [rolled_out(Models(), Bounds(), seed) for seed in range(3)] == [None] * 3


def test_one_that_is_worse_is_found_with_at_most_three_times_the_pairs_of_a_fixed_sample() -> None:
    models = Models(worse=0.10, differ=0.16)
    fixed = fixed_sample(models, 0.025, power=0.8)
    needed = [pairs_until_found(models, 0.025, seed, 6 * fixed) for seed in range(21)]
    assert quantile(needed, 0.5, 6 * fixed) <= 3 * fixed


def test_one_that_fails_is_rolled_back() -> None:
    decision = rolled_out(Models(disagree=0.5), Bounds(), seed=1)
    assert decision is not None
    assert decision.metric == "disagreement"


def test_one_that_costs_twice_as_much_as_allowed_is_rolled_back() -> None:
    decision = rolled_out(Models(dearer=3.0), Bounds(), seed=1)
    assert decision is not None
    assert decision.metric == "cost"


def test_the_size_of_a_fixed_sample_and_the_bound_of_a_share() -> None:
    # (1.96 + 0.8416)**2 * (0.1 - 0.0009) / 0.0009
    assert fixed_sample(Models(worse=0.03, differ=0.10), 0.025, 0.8) == 865
    # The rule of three: 3 / n for none of n.
    assert upper_bound(0, 1_000) == pytest.approx(0.003, rel=0.01)
    assert upper_bound(25, 1_000) == pytest.approx(0.0349, abs=0.0005)
