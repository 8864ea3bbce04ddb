"""The scaling policy: cases computed by hand, and laws that hold for any load."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh.capacity.policy import (
    LOOK_S,
    Scaler,
    ScalingPolicy,
    of_consumers,
    whole,
    work_by_lag,
)

# 50 reviews a second, planned with 40.
POLICY = ScalingPolicy(50, target_utilisation=0.8, min_replicas=1, max_replicas=20)
RATES = st.floats(0, 1e6, allow_nan=False)
POLICIES = st.builds(
    lambda rate, backlog_s, utilisation, least, more: ScalingPolicy(
        rate, backlog_s, utilisation, least, least + more
    ),
    st.floats(0.01, 1e4),
    st.floats(0.1, 1e4),
    st.floats(0.1, 0.9),
    st.integers(1, 20),
    st.integers(0, 200),
)


@pytest.mark.parametrize(
    ("arrivals", "backlog", "replicas"),
    [
        (0, 0, 1),
        (40, 0, 1),
        (40.1, 0, 2),
        # 2,400 in 60 s are 40 a second more.
        (40, 2_400, 2),
        (0, 24_000, 10),
        (1_000_000, 0, 20),
        # KEDA hands thousandths on: a ten-thousandth of a replica is none.
        (40.001, 0, 1),
    ],
)
def test_the_replicas_for_a_load(arrivals: float, backlog: float, replicas: int) -> None:
    assert POLICY.wanted(arrivals, backlog) == replicas


@given(POLICIES, RATES, RATES, RATES, RATES)
def test_more_to_do_never_wants_fewer(
    policy: ScalingPolicy, rate: float, more: float, backlog: float, more_waits: float
) -> None:
    before = policy.wanted(rate, backlog)
    assert policy.min_replicas <= before <= policy.max_replicas
    assert policy.wanted(rate + more, backlog) >= before
    assert policy.wanted(rate, backlog + more_waits) >= before


@given(POLICIES, RATES, RATES)
def test_what_is_wanted_does_the_work_in_time(
    policy: ScalingPolicy, rate: float, backlog: float
) -> None:
    wanted = policy.wanted(rate, backlog)
    if wanted < policy.max_replicas:
        # A thousandth of a replica is left out.
        planned = (wanted + 0.001) * policy.planned_per_s
        assert planned >= (rate + backlog / policy.backlog_s) * (1 - 1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reviews_per_s": 0},
        {"backlog_s": 0},
        {"rate_window_s": float("inf")},
        {"target_utilisation": 0},
        {"target_utilisation": 0.91},
        {"min_replicas": 0},
        {"min_replicas": 21},
        {"start_s": -1},
        {"scale_down_s": float("nan")},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(POLICY, **wrong)  # type: ignore[arg-type]


def test_there_is_calm_for_longer_than_a_start() -> None:
    assert replace(POLICY, start_s=60).calm_s == 300
    assert replace(POLICY, start_s=400).calm_s == 600
    assert replace(POLICY, start_s=1e6).calm_s == 3600


def test_consumers_are_no_more_than_partitions_and_go_by_lag() -> None:
    assert of_consumers(20, 6) == 6
    assert of_consumers(4, 6) == 4
    assert whole(work_by_lag(45, 30, 2)) == 3


def looks(scaler: Scaler, works: list[float | None], start: float = 0) -> list[int]:
    return [scaler.look(start + LOOK_S * n, work) for n, work in enumerate(works)]


def test_no_answer_of_prometheus_changes_nothing() -> None:
    scaler = Scaler(POLICY, 3)
    assert looks(scaler, [3.0, *[None] * 100]) == [3] * 101


def test_a_tenth_more_is_borne_and_more_is_not() -> None:
    assert looks(Scaler(POLICY, 10), [10.99] * 50)[-1] == 10
    assert looks(Scaler(POLICY, 10), [11.1] * 50)[-1] == 12


def test_a_short_peak_adds_nothing_and_a_longer_one_adds_step_by_step() -> None:
    assert looks(Scaler(POLICY, 1), [1.0, 18.0, 1.0, 1.0])[-1] == 1
    # At most four more or twice as many a minute.
    grown = looks(Scaler(POLICY, 1), [18.0] * 14)
    assert grown[:3] == [1, 1, 1] and grown[3] == 5
    assert sorted(set(grown)) == [1, 5, 10, 18]


def test_fewer_only_after_the_calm_and_one_a_minute() -> None:
    seen = looks(Scaler(POLICY, 5), [5.0, *[1.0] * 60])
    first = seen.index(4)
    assert POLICY.calm_s < first * LOOK_S <= POLICY.calm_s + 2 * LOOK_S
    assert seen[first : first + 5] == [4, 4, 4, 4, 3]
    assert seen[-1] == 1


def test_fewer_only_if_one_fewer_still_keeps_up() -> None:
    assert looks(Scaler(POLICY, 5), [4.3] * 200)[-1] == 5
    assert looks(Scaler(POLICY, 5), [4.0] * 200)[-1] == 4


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20),
    st.floats(0, 25),
    st.lists(st.floats(0.955, 1.045), min_size=60, max_size=100),
)
def test_a_load_that_only_trembles_adds_nothing_after_it_took_away(
    replicas: int, work: float, trembling: list[float]
) -> None:
    """Nine hundredths are less than the tenth that is borne: replicas settle and stay."""
    seen = looks(Scaler(POLICY, replicas), [work * factor for factor in trembling])
    steps = [after - before for before, after in pairwise([replicas, *seen]) if after != before]
    assert sorted(steps, key=lambda step: step < 0) == steps


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.floats(0, 25))
def test_a_constant_load_that_fits_within_one_changes_replicas_at_most_once(
    replicas: int, work: float
) -> None:
    seen = looks(Scaler(POLICY, replicas), [work] * 80)
    changes = sum(before != after for before, after in pairwise([replicas, *seen]))
    target = POLICY.bounded(whole(work))
    if abs(target - replicas) <= 1:
        assert changes <= 1
