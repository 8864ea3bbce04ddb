"""Time to drain from what was seen: steady, stalled, idle, set back."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.lag.rates import WINDOW_S, DrainRate


@given(rate=st.integers(1, 5_000), seconds=st.integers(1, 300), backlog=st.integers(1, 1_000_000))
def test_a_steady_rate_gives_backlog_over_rate(rate: int, seconds: int, backlog: int) -> None:
    drain = DrainRate()
    drain.observe(0, 0, backlog)
    for second in range(1, seconds + 1):
        left = drain.observe(second, rate * second, backlog)
    assert math.isclose(left, backlog / rate)


def test_what_never_moved_never_drains() -> None:
    drain = DrainRate()
    assert [drain.observe(now, 7, 100) for now in (0, 1, 2)] == [math.inf] * 3


def test_a_stall_is_told_after_the_window_and_not_before() -> None:
    drain = DrainRate()
    drain.observe(0, 0, 100)
    drain.observe(1, 10, 90)
    assert drain.observe(WINDOW_S, 10, 90) < math.inf
    assert drain.observe(2 * WINDOW_S + 1, 10, 90) == math.inf


def test_caught_up_is_nothing_to_drain_whatever_came_before() -> None:
    drain = DrainRate()
    assert drain.observe(0, 5, 0) == 0
    assert drain.observe(1, 5, 3) == math.inf
    assert drain.observe(2, 8, 0) == 0


def test_idle_time_does_not_count_as_slowness() -> None:
    drain = DrainRate()
    drain.observe(0, 0, 100)
    drain.observe(1, 100, 0)
    drain.observe(1_000, 100, 0)
    assert drain.observe(1_001, 150, 100) == 2


def test_offsets_that_are_set_back_start_a_new_measurement() -> None:
    drain = DrainRate()
    drain.observe(0, 1_000, 10)
    drain.observe(1, 1_010, 10)
    drain.observe(2, 0, 1_010)
    assert drain.observe(3, 101, 909) == 9


def test_a_clock_that_is_set_back_starts_a_new_measurement() -> None:
    drain = DrainRate()
    drain.observe(100, 0, 100)
    drain.observe(40, 50, 50)
    assert drain.observe(41, 60, 40) == 4
