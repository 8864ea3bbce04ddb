"""How a worker stands with the pool, driven by a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reviewmesh.enrich.standing import (
    CALLS_PER_WORKER,
    FAILURES_BEFORE_EJECTION,
    FIRST_PAUSE_S,
    ITEMS_PER_WORKER,
    LONGEST_HOLD_S,
    LONGEST_PAUSE_S,
    SMALLEST_ROOM,
    SNAPSHOT_HOLDS_S,
    Standing,
    State,
    backoff_s,
)


@dataclass
class SimulatedClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def serving(clock: SimulatedClock) -> Standing:
    standing = Standing(clock, draw=lambda: 0.5)
    standing.healthy()
    return standing


def on_trial(clock: SimulatedClock) -> Standing:
    standing = serving(clock)
    standing.eject(over_calls=True)
    standing.healthy()
    return standing


def call(standing: Standing, items: int = 1) -> None:
    assert standing.room()
    standing.started(items)


@given(st.integers(0, 5000), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_within_its_bounds(failures: int, draw: float) -> None:
    pause = backoff_s(failures, 0.1, 5.0, draw)
    middle = min(0.1 * 2 ** min(failures, 20), 5.0)
    assert 0.5 * middle <= pause <= 1.5 * middle * (1 + 1e-9)
    assert backoff_s(failures + 1, 0.1, 5.0, draw) >= pause


def test_backoff_is_spread() -> None:
    assert backoff_s(3, 0.1, 5.0, 0.0) < backoff_s(3, 0.1, 5.0, 0.9)


def test_a_new_worker_takes_nothing_before_its_health_check() -> None:
    standing = Standing(SimulatedClock())
    assert not standing.room()
    assert standing.healthy()
    for _ in range(CALLS_PER_WORKER):
        call(standing)
    assert not standing.room()


def test_one_that_only_went_away_comes_back_in_full() -> None:
    standing = serving(SimulatedClock())
    standing.eject(over_calls=False)
    standing.healthy()
    assert standing.state is State.SERVING


def test_half_open_lets_one_call_through_until_it_is_answered() -> None:
    standing = on_trial(SimulatedClock())
    standing.eject(over_calls=False)
    standing.healthy()
    call(standing)
    assert not standing.room()
    standing.answered()
    assert standing.state is State.SERVING
    for _ in range(CALLS_PER_WORKER - 1):
        call(standing)
    assert not standing.room()


def test_the_call_of_a_suspect_is_no_trial() -> None:
    standing = on_trial(SimulatedClock())
    standing.started(1, suspect=True)
    call(standing)
    assert not standing.room()
    standing.ended(1)
    assert standing.room()
    standing.ended(1, suspect=True)
    assert standing.room() and standing.calls == 0


def test_only_results_show_that_a_worker_does_not_hang() -> None:
    clock = SimulatedClock()
    standing = serving(clock)
    standing.answered()
    assert not standing.answered_since(clock.now)
    standing.answered(busy=0)
    assert standing.answered_since(clock.now)
    assert not standing.answered_since(clock.now + 0.1)


def test_a_failed_trial_ejects_at_once_and_a_failure_in_traffic_does_not() -> None:
    clock = SimulatedClock()
    assert on_trial(clock).failed()
    standing = serving(clock)
    assert [standing.failed() for _ in range(FAILURES_BEFORE_EJECTION)] == [
        *[False] * (FAILURES_BEFORE_EJECTION - 1),
        True,
    ]


def test_an_answer_forgets_the_failures_before_it() -> None:
    standing = serving(SimulatedClock())
    for _ in range(3 * FAILURES_BEFORE_EJECTION):
        assert not standing.failed()
        standing.answered()


def test_a_good_health_check_alone_does_not_shorten_the_pauses() -> None:
    standing = Standing(SimulatedClock(), draw=lambda: 0.5)
    pauses = []
    for _ in range(8):
        pauses.append(standing.eject(over_calls=True))
        standing.healthy()
    assert pauses[0] == FIRST_PAUSE_S and pauses[-1] == LONGEST_PAUSE_S
    assert pauses == sorted(pauses)
    call(standing)
    standing.answered()
    assert standing.eject(over_calls=True) == FIRST_PAUSE_S


def test_a_full_worker_is_left_alone_as_long_as_it_said_within_bounds() -> None:
    clock = SimulatedClock()
    standing = serving(clock)
    assert standing.hold_off(0.4) == 0.4 * 1.25
    standing.hold_off(0.1)
    clock.now += 0.49
    assert not standing.room()
    clock.now += 0.02
    assert standing.room()
    assert standing.hold_off(3600.0) == LONGEST_HOLD_S * 1.25


def test_what_a_full_worker_refuses_halves_our_share_until_calls_are_answered() -> None:
    clock = SimulatedClock()
    standing = serving(clock)

    def refuse(*calls: int) -> int:
        for items in calls:
            standing.started(items)
        for items in calls:
            standing.hold_off(1.0)
            standing.ended(items)
        clock.now += 1.0
        return standing.room()

    # Three calls on their way together were too many by the same want of room.
    assert [refuse(32, 32, 32), refuse(32, 16), refuse(24)] == [48, 24, 12]
    assert [refuse(12), refuse(6), refuse(3), refuse(1), refuse(1)] == [6, 3, 1, 1, 1]
    standing.took(1, 0.01)
    assert standing.room() == 2
    for _ in range(10):
        standing.took(standing.room(), 0.01)
    assert standing.room() == ITEMS_PER_WORKER


def test_a_share_is_for_all_calls_together() -> None:
    clock = SimulatedClock()
    standing = serving(clock)
    for _ in range(3):
        call(standing, 32)
    standing.hold_off(0.1)
    clock.now += 1.0
    standing.ended(32)
    assert not standing.room(), "64 are there, 48 are our share"
    standing.ended(32)
    assert standing.room() == 16


def test_the_load_of_others_counts_while_the_snapshot_is_fresh() -> None:
    clock = SimulatedClock()
    standing = serving(clock)
    call(standing, 32)
    call(standing, 8)
    standing.answered(busy=20, own=32)
    standing.ended(32)
    # Of the 20 that the worker still had, 8 were ours.
    assert standing.load() == 8 + 12
    clock.now += SNAPSHOT_HOLDS_S
    assert standing.load() == 8


def test_the_room_of_a_slow_worker_is_filled_again_as_results_come() -> None:
    standing = serving(SimulatedClock())
    for _ in range(50):
        standing.took(1, 1.0)
    assert standing.is_slow()
    for _ in range(ITEMS_PER_WORKER // 32):
        call(standing, 32)
    standing.done(SMALLEST_ROOM - 1)
    assert not standing.room()
    standing.done(1)
    assert standing.room()
    for _ in range(50):
        standing.took(1, 0.001)
    assert not standing.is_slow()


def test_no_call_is_larger_than_the_room_that_the_worker_told_of() -> None:
    standing = serving(SimulatedClock())
    call(standing, 32)
    standing.answered(most=48)
    assert standing.room() == 16
    standing.answered(most=40)
    assert not standing.room()
    standing.ended(32)
    assert standing.room() == 40


def test_a_worker_with_less_room_than_the_smallest_call_is_used_all_the_same() -> None:
    standing = serving(SimulatedClock())
    standing.answered(most=SMALLEST_ROOM // 4)
    assert standing.room() == SMALLEST_ROOM // 4


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing goes to an ejected or full worker."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock()
        self.standing = Standing(self.clock, draw=lambda: 0.5)
        self.open: list[int] = []
        self.held_until = 0.0
        self.most = ITEMS_PER_WORKER

    @rule()
    def check_is_good(self) -> None:
        before = self.standing.state
        assert self.standing.healthy() == (before is State.EJECTED)

    @rule(over_calls=st.booleans())
    def goes(self, over_calls: bool) -> None:
        assert 0 < self.standing.eject(over_calls) <= LONGEST_PAUSE_S
        assert not self.standing.room()

    @precondition(lambda self: self.standing.room())
    @rule(wanted=st.integers(1, 300))
    def send(self, wanted: int) -> None:
        items = min(wanted, self.standing.room())
        assert self.standing.state is not State.EJECTED
        assert self.clock.now >= self.held_until
        assert self.standing.items + items <= self.most
        self.standing.started(items)
        self.open.append(items)

    @precondition(lambda self: self.open)
    @rule(busy=st.integers(0, 500), most=st.integers(0, 500))
    def answer(self, busy: int, most: int) -> None:
        before = self.standing.state
        self.standing.answered(busy, self.open[0], most)
        # A worker of an older version tells nothing.
        self.most = most or self.most
        self.standing.ended(self.open.pop(0))
        # Only a health check brings an ejected worker back.
        assert (self.standing.state is State.EJECTED) == (before is State.EJECTED)

    @precondition(lambda self: self.open)
    @rule()
    def fail(self) -> None:
        if self.standing.failed():
            self.standing.eject(over_calls=True)
        self.standing.ended(self.open.pop(0))

    @precondition(lambda self: self.open)
    @rule(seconds=st.floats(0.01, 5))
    def full(self, seconds: float) -> None:
        held = self.standing.hold_off(seconds)
        assert held <= 1
        self.held_until = max(self.held_until, self.clock.now + held)
        self.standing.ended(self.open.pop(0))

    @rule(seconds=st.floats(0.01, 10))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def counts_hold(self) -> None:
        assert (self.standing.calls, self.standing.items) == (len(self.open), sum(self.open))
        assert len(self.open) <= CALLS_PER_WORKER
        assert self.standing.load() >= sum(self.open)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
