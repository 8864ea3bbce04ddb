"""Arrivals through the policy, and the time that a backlog takes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh.capacity.drain import drain_s
from reviewmesh.capacity.pictures import as_csv, as_svg
from reviewmesh.capacity.policy import LOOK_S, ScalingPolicy
from reviewmesh.capacity.replay import replay

POLICY = ScalingPolicy(50, max_replicas=40, start_s=60)
MINUTE = 60.0
HOUR = 60
HALF_AN_HOUR = 30
OBJECTIVE_S = 300.0


@pytest.mark.parametrize(
    ("backlog", "arrivals", "replicas", "starts", "seconds"),
    [
        (0, 1_000, 1, [], 0),
        (3_000, 40, 1, [], 300),
        (3_000, 0, 2, [], 30),
        (3_000, 50, 1, [], math.inf),
        (3_000, 60, 1, [], math.inf),
        # 600 more until the second answers, then 40 a second fewer.
        (3_000, 60, 1, [60], 60 + 3_600 / 40),
        # Done before anybody helps.
        (1_000, 0, 1, [60], 20),
        (1_000, 0, 0, [10, 30], 10 + 20),
    ],
)
def test_a_backlog_takes(
    backlog: float, arrivals: float, replicas: int, starts: list[float], seconds: float
) -> None:
    assert drain_s(backlog, arrivals, 50, replicas, starts) == pytest.approx(seconds)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1_900), st.integers(1, 40))
def test_a_constant_load_never_oscillates(rate: float, replicas: int) -> None:
    """From any number of replicas: up while there is a backlog, then down, and no more."""
    policy = replace(POLICY, min_replicas=1)
    found = replay(policy, [rate * MINUTE] * HALF_AN_HOUR, MINUTE, replicas)
    assert found.turns <= 1
    enough = replicas * policy.reviews_per_s >= rate
    assert not enough or found.largest_backlog.backlog == 0


@settings(max_examples=10, deadline=None)
@given(st.floats(1, 1_500))
def test_a_constant_load_changes_nothing_once_there_are_enough(rate: float) -> None:
    found = replay(POLICY, [rate * MINUTE] * HALF_AN_HOUR, MINUTE)
    assert found.changes == []
    assert found.lag_s(1.0) == 0


@settings(max_examples=10, deadline=None)
@given(st.floats(1, 1_500), st.lists(st.floats(0.96, 1.04), min_size=30, max_size=30))
def test_a_load_within_the_measured_rate_never_oscillates(
    rate: float, trembling: list[float]
) -> None:
    counts = [rate * MINUTE * factor for factor in trembling]
    found = replay(POLICY, counts, MINUTE)
    # What was added too much may be taken away again; nothing is added after that.
    assert found.turns == 0 or (found.turns == 1 and found.changes[0][1] > 0)
    assert found.lag_s(1.0) <= 1


def day(base: float, peak: float) -> list[float]:
    """Reviews a minute: constant, and from the tenth hour on for an hour tenfold."""
    return [
        MINUTE * (peak if 10 * HOUR <= minute < 11 * HOUR else base) for minute in range(24 * HOUR)
    ]


def test_a_day_with_a_tenfold_peak_meets_its_objective_at_the_cost_told() -> None:
    found = replay(POLICY, day(60, 600), MINUTE)
    # 600 a second at 40 a worker.
    assert found.most_replicas >= 15
    assert found.lag_s(1.0) <= OBJECTIVE_S
    assert found.lag_s(0.5) == 0
    # More for the peak, fewer after it: once.
    assert found.turns == 1
    # Two workers for 23 hours, 15 to 22 for one, an hour or so on the way down.
    least = 2 * 23 + 15
    assert least <= found.replica_hours <= least + 25
    # A fixed number that bears the peak costs several times as much.
    assert found.replica_hours < 24 * 15 / 3
    assert found.unanswered == 0
    assert sum(found.waited.values()) == pytest.approx(sum(day(60, 600)))


def test_without_enough_workers_at_most_reviews_wait_and_are_counted() -> None:
    found = replay(replace(POLICY, max_replicas=1), [100 * MINUTE] * 10, MINUTE)
    assert found.most_replicas == 1
    assert found.largest_backlog.backlog == pytest.approx(30_000, rel=0.02)
    # Half as fast as they come: the last waits as long as all took to come.
    assert found.lag_s(1.0) == pytest.approx(600, rel=0.02)
    hopeless = replay(replace(POLICY, max_replicas=1), [200 * MINUTE] * 10, MINUTE)
    assert hopeless.unanswered == pytest.approx(60_000)
    assert math.isinf(hopeless.lag_s(0.99)) and math.isinf(hopeless.drained_s)


@pytest.mark.parametrize(
    ("replicas", "share", "backlog"), [(1, 0, 3_000), (1, 0.9, 3_000), (3, 0.5, 9_000)]
)
def test_a_backlog_drains_as_predicted(replicas: int, share: float, backlog: float) -> None:
    fixed = replace(POLICY, min_replicas=replicas, max_replicas=replicas)
    rate = share * replicas * POLICY.reviews_per_s
    counts = [backlog + rate * LOOK_S, *[rate * LOOK_S] * 60]
    found = replay(fixed, counts, LOOK_S, replicas)
    assert found.predicted_drain_s > 15
    assert found.drained_s == pytest.approx(found.predicted_drain_s, abs=2)


def test_a_slower_start_makes_reviews_wait_longer() -> None:
    fast, slow = (
        replay(replace(POLICY, start_s=start), day(60, 600), MINUTE).lag_s(0.99)
        for start in (30, 600)
    )
    assert fast < slow


def test_no_arrivals_at_all_keep_what_there_is_at_least() -> None:
    found = replay(replace(POLICY, min_replicas=2), [0.0] * 60, MINUTE)
    assert (found.most_replicas, found.changes, found.lag_s(1.0)) == (2, [], 0)
    assert found.replica_hours == pytest.approx(2)


def test_the_pictures_hold_every_look_and_no_markup_of_a_name() -> None:
    found = replay(POLICY, day(60, 600), MINUTE)
    lines = as_csv(found.moments).splitlines()
    assert lines[0] == "at_s,arrivals_per_s,backlog,lag_s,replicas,answering"
    assert len(lines) == 1 + len(found.moments)
    picture = as_svg(found.moments, "topic on <H200> & more")
    assert "<H200>" not in picture and "&lt;H200&gt; &amp; more" in picture
    assert picture.count("<polyline") == 3
    # Peaks are not thinned out.
    assert f">{found.most_replicas}</text>" in picture
