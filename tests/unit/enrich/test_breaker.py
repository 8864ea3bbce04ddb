"""How a worker stands with the pool, driven by a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reviewmesh.enrich.breaker import (
    CALLS_PER_WORKER,
    FAILURES_BEFORE_EJECTION,
    FIRST_PAUSE_S,
    ITEMS_PER_WORKER,
    LOAD_VALID_S,
    LONGEST_HOLD_S,
    LONGEST_PAUSE_S,
    SMALLEST_ROOM,
    Breaker,
    State,
    backoff_s,
)


@dataclass
class SimulatedClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def serving(clock: SimulatedClock) -> Breaker:
    breaker = Breaker(clock, draw=lambda: 0.5)
    breaker.healthy()
    return breaker


def on_trial(clock: SimulatedClock) -> Breaker:
    breaker = serving(clock)
    breaker.eject(because_of_calls=True)
    breaker.healthy()
    return breaker


def call(breaker: Breaker, items: int = 1) -> None:
    assert breaker.room()
    breaker.started(items)


@given(st.integers(0, 5000), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_within_its_bounds(failures: int, draw: float) -> None:
    pause = backoff_s(failures, 0.1, 5.0, draw)
    middle = min(0.1 * 2 ** min(failures, 20), 5.0)
    assert 0.5 * middle <= pause <= 1.5 * middle * (1 + 1e-9)
    assert backoff_s(failures + 1, 0.1, 5.0, draw) >= pause


def test_backoff_is_spread() -> None:
    assert backoff_s(3, 0.1, 5.0, 0.0) < backoff_s(3, 0.1, 5.0, 0.9)


def test_a_new_worker_takes_nothing_before_its_health_check() -> None:
    breaker = Breaker(SimulatedClock())
    assert not breaker.room()
    assert breaker.healthy()
    for _ in range(CALLS_PER_WORKER):
        call(breaker)
    assert not breaker.room()


def test_one_that_only_went_away_comes_back_in_full() -> None:
    breaker = serving(SimulatedClock())
    breaker.eject(because_of_calls=False)
    breaker.healthy()
    assert breaker.state is State.SERVING


def test_half_open_lets_one_call_through_until_it_is_answered() -> None:
    breaker = on_trial(SimulatedClock())
    breaker.eject(because_of_calls=False)
    breaker.healthy()
    call(breaker)
    assert not breaker.room()
    breaker.answered()
    assert breaker.state is State.SERVING
    for _ in range(CALLS_PER_WORKER - 1):
        call(breaker)
    assert not breaker.room()


def test_the_call_of_a_suspect_is_no_trial() -> None:
    breaker = on_trial(SimulatedClock())
    breaker.started(1, suspect=True)
    call(breaker)
    assert not breaker.room()
    breaker.ended(1)
    assert breaker.room()
    breaker.ended(1, suspect=True)
    assert breaker.room() and breaker.calls == 0


def test_only_results_show_that_a_worker_does_not_hang() -> None:
    clock = SimulatedClock()
    breaker = serving(clock)
    breaker.answered()
    assert not breaker.answered_since(clock.now)
    breaker.answered(busy=0)
    assert breaker.answered_since(clock.now)
    assert not breaker.answered_since(clock.now + 0.1)


def test_a_failed_trial_ejects_at_once_and_a_failure_in_traffic_does_not() -> None:
    clock = SimulatedClock()
    assert on_trial(clock).failed()
    breaker = serving(clock)
    assert [breaker.failed() for _ in range(FAILURES_BEFORE_EJECTION)] == [
        *[False] * (FAILURES_BEFORE_EJECTION - 1),
        True,
    ]


def test_an_answer_forgets_the_failures_before_it() -> None:
    breaker = serving(SimulatedClock())
    for _ in range(3 * FAILURES_BEFORE_EJECTION):
        assert not breaker.failed()
        breaker.answered()


def test_a_good_health_check_alone_does_not_shorten_the_pauses() -> None:
    breaker = Breaker(SimulatedClock(), draw=lambda: 0.5)
    pauses = []
    for _ in range(8):
        pauses.append(breaker.eject(because_of_calls=True))
        breaker.healthy()
    assert pauses[0] == FIRST_PAUSE_S and pauses[-1] == LONGEST_PAUSE_S
    assert pauses == sorted(pauses)
    call(breaker)
    breaker.answered()
    assert breaker.eject(because_of_calls=True) == FIRST_PAUSE_S


def test_a_full_worker_is_left_alone_as_long_as_it_said_within_bounds() -> None:
    clock = SimulatedClock()
    breaker = serving(clock)
    assert breaker.hold_off(0.4) == 0.4 * 1.25
    breaker.hold_off(0.1)
    clock.now += 0.49
    assert not breaker.room()
    clock.now += 0.02
    assert breaker.room()
    assert breaker.hold_off(3600.0) == LONGEST_HOLD_S * 1.25


def test_what_a_full_worker_refuses_halves_our_share_until_calls_are_answered() -> None:
    clock = SimulatedClock()
    breaker = serving(clock)

    def refuse(*calls: int) -> int:
        for items in calls:
            breaker.started(items)
        for items in calls:
            breaker.hold_off(1.0)
            breaker.ended(items)
        clock.now += 1.0
        return breaker.room()

    # Three calls on their way together were too many by the same want of room.
    assert [refuse(32, 32, 32), refuse(32, 16), refuse(24)] == [48, 24, 12]
    assert [refuse(12), refuse(6), refuse(3), refuse(1), refuse(1)] == [6, 3, 1, 1, 1]
    breaker.call_succeeded(1, 0.01)
    assert breaker.room() == 2
    for _ in range(10):
        breaker.call_succeeded(breaker.room(), 0.01)
    assert breaker.room() == ITEMS_PER_WORKER


def test_a_share_is_for_all_calls_together() -> None:
    clock = SimulatedClock()
    breaker = serving(clock)
    for _ in range(3):
        call(breaker, 32)
    breaker.hold_off(0.1)
    clock.now += 1.0
    breaker.ended(32)
    assert not breaker.room(), "64 are there, 48 are our share"
    breaker.ended(32)
    assert breaker.room() == 16


def test_the_load_of_others_counts_while_the_snapshot_is_fresh() -> None:
    clock = SimulatedClock()
    breaker = serving(clock)
    call(breaker, 32)
    call(breaker, 8)
    breaker.answered(busy=20, own=32)
    breaker.ended(32)
    # Of the 20 that the worker still had, 8 were ours.
    assert breaker.load() == 8 + 12
    clock.now += LOAD_VALID_S
    assert breaker.load() == 8


def test_the_room_of_a_slow_worker_is_filled_again_as_results_come() -> None:
    breaker = serving(SimulatedClock())
    for _ in range(50):
        breaker.call_succeeded(1, 1.0)
    assert breaker.is_slow()
    for _ in range(ITEMS_PER_WORKER // 32):
        call(breaker, 32)
    breaker.items_answered(SMALLEST_ROOM - 1)
    assert not breaker.room()
    breaker.items_answered(1)
    assert breaker.room()
    for _ in range(50):
        breaker.call_succeeded(1, 0.001)
    assert not breaker.is_slow()


def test_no_call_is_larger_than_the_room_that_the_worker_told_of() -> None:
    breaker = serving(SimulatedClock())
    call(breaker, 32)
    breaker.answered(most=48)
    assert breaker.room() == 16
    breaker.answered(most=40)
    assert not breaker.room()
    breaker.ended(32)
    assert breaker.room() == 40


def test_a_worker_with_less_room_than_the_smallest_call_is_used_all_the_same() -> None:
    breaker = serving(SimulatedClock())
    breaker.answered(most=SMALLEST_ROOM // 4)
    assert breaker.room() == SMALLEST_ROOM // 4


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing goes to an ejected or full worker."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock()
        self.breaker = Breaker(self.clock, draw=lambda: 0.5)
        self.open: list[int] = []
        self.held_until = 0.0
        self.most = ITEMS_PER_WORKER

    @rule()
    def check_is_good(self) -> None:
        before = self.breaker.state
        assert self.breaker.healthy() == (before is State.EJECTED)

    @rule(because_of_calls=st.booleans())
    def goes(self, because_of_calls: bool) -> None:
        assert 0 < self.breaker.eject(because_of_calls) <= LONGEST_PAUSE_S
        assert not self.breaker.room()

    @precondition(lambda self: self.breaker.room())
    @rule(wanted=st.integers(1, 300))
    def send(self, wanted: int) -> None:
        items = min(wanted, self.breaker.room())
        assert self.breaker.state is not State.EJECTED
        assert self.clock.now >= self.held_until
        assert self.breaker.items + items <= self.most
        self.breaker.started(items)
        self.open.append(items)

    @precondition(lambda self: self.open)
    @rule(busy=st.integers(0, 500), most=st.integers(0, 500))
    def answer(self, busy: int, most: int) -> None:
        before = self.breaker.state
        self.breaker.answered(busy, self.open[0], most)
        # A worker of an older version tells nothing.
        self.most = most or self.most
        self.breaker.ended(self.open.pop(0))
        # Only a health check brings an ejected worker back.
        assert (self.breaker.state is State.EJECTED) == (before is State.EJECTED)

    @precondition(lambda self: self.open)
    @rule()
    def fail(self) -> None:
        if self.breaker.failed():
            self.breaker.eject(because_of_calls=True)
        self.breaker.ended(self.open.pop(0))

    @precondition(lambda self: self.open)
    @rule(seconds=st.floats(0.01, 5))
    def full(self, seconds: float) -> None:
        held = self.breaker.hold_off(seconds)
        assert held <= 1
        self.held_until = max(self.held_until, self.clock.now + held)
        self.breaker.ended(self.open.pop(0))

    @rule(seconds=st.floats(0.01, 10))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def counts_hold(self) -> None:
        assert (self.breaker.calls, self.breaker.items) == (len(self.open), sum(self.open))
        assert len(self.open) <= CALLS_PER_WORKER
        assert self.breaker.load() >= sum(self.open)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_failed_trial_is_remembered_until_an_answer_or_until_the_worker_is_away() -> None:
    clock = SimulatedClock()
    breaker = serving(clock)
    breaker.eject(because_of_calls=True)
    breaker.healthy()
    assert not breaker.fails_trials(), "its first trial"
    breaker.eject(because_of_calls=True)
    assert breaker.fails_trials()
    breaker.healthy()
    assert breaker.fails_trials(), "a health check says nothing of its calls"
    breaker.answered()
    assert not breaker.fails_trials()

    breaker.eject(because_of_calls=True)
    assert not breaker.fails_trials(), "it served"
    breaker.healthy()
    breaker.eject(because_of_calls=True)
    breaker.eject(because_of_calls=False)
    assert not breaker.fails_trials(), "it is away"
