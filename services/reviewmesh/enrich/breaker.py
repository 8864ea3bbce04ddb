"""One worker's circuit breaker, and how many items it may have in flight. Pure: the clock is an
argument.

A worker starts ejected, and gets calls once a health check says SERVING. After an ejection because
of its calls the breaker is half-open: one trial call goes through, and others follow when it is
answered. A worker is ejected when a call breaks, or after FAILURES_BEFORE_EJECTION failed calls in
a row, so that a worker that fails fast does not attract all calls.

The limit of items in flight adapts like TCP's congestion window: a refusal halves it, and each
answered call raises it by the size of the call. So several clients share a worker with few
refusals, and a single client soon fills it.

A unary call ends with its slowest item. So slow inference is streamed, and each result makes room
for another item while the call still runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

FIRST_PAUSE_S = 0.1
# Short, because a recovered worker is idle until the pause ends.
LONGEST_PAUSE_S = 0.6
LONGEST_HOLD_S = 0.5
FAILURES_BEFORE_EJECTION = 5
LOAD_VALID_S = 5.0
CALLS_PER_WORKER = 8
# The limit until a worker has reported its own.
ITEMS_PER_WORKER = 256
# Less room is not worth a call, because a call costs both sides the same whatever its size.
SMALLEST_ROOM = 16
SLOW_CALL_S = 0.05
CALL_SECONDS_SMOOTHING = 0.2


def backoff_s(failures: int, first_s: float, longest_s: float, draw: float) -> float:
    """Seconds that double with each failure up to `longest_s`, plus or minus up to half.

    `draw`: a random number in [0, 1).
    """
    # The exponent is bounded: a float overflows at 1024 failures.
    return min(first_s * 2.0 ** min(failures, 32), longest_s) * (0.5 + draw)


class State(Enum):
    EJECTED = "ejected"
    HALF_OPEN = "half-open"
    SERVING = "serving"


class Breaker:
    """Used from one event loop."""

    def __init__(
        self,
        clock: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self.state = State.EJECTED
        self.calls = 0
        self.items = 0
        self._suspects = 0
        self._answered_at = float("-inf")
        self._reported_max = ITEMS_PER_WORKER
        self._window = ITEMS_PER_WORKER
        self._call_s = 0.0
        self._not_before = 0.0
        self._others_items = 0
        self._others_reported_at = float("-inf")
        self._failures = 0
        self._ejections = 0
        self._needs_trial = False
        self._trial_failed = False

    # -- choosing ----------------------------------------------------------------------------

    def room(self) -> int:
        """Most items of a call now; 0 while the breaker lets no call through."""
        if self.state is State.EJECTED or self._not_before > self._clock():
            return 0
        most = min(self._reported_max, self._window)
        if self.state is State.HALF_OPEN:
            return 0 if self.calls > self._suspects else most
        if self.calls >= CALLS_PER_WORKER and not self.is_slow():
            return 0
        free = most - self.items
        return free if free >= min(SMALLEST_ROOM, most) else 0

    def is_slow(self) -> bool:
        """Whether calls take so long that their results should be streamed."""
        return self._call_s > SLOW_CALL_S

    def fails_trials(self) -> bool:
        """Whether its last trial call failed, though it passes health checks."""
        return self._trial_failed

    def load(self) -> int:
        """Our items in flight, plus those of other clients if the worker reported them recently."""
        fresh = self._clock() - self._others_reported_at < LOAD_VALID_S
        return self.items + (self._others_items if fresh else 0)

    # -- calls -------------------------------------------------------------------------------

    def started(self, items: int, suspect: bool = False) -> None:
        """A call was sent.

        A suspect's call is no half-open trial: its item may be the cause of a timeout.
        """
        self.calls += 1
        self._suspects += suspect
        self.items += items

    def items_answered(self, items: int) -> None:
        """Results of so many items arrived while their call runs."""
        self.items -= items

    def ended(self, items: int, suspect: bool = False) -> None:
        """A call ended, with so many items that had no result before."""
        self.calls -= 1
        self._suspects -= suspect
        self.items -= items

    def call_succeeded(self, items: int, seconds: float) -> None:
        """A call of so many items succeeded after so many seconds."""
        self._window = min(self._window + items, max(self._reported_max, ITEMS_PER_WORKER))
        self._call_s += CALL_SECONDS_SMOOTHING * (seconds - self._call_s)

    def answered(self, busy: int | None = None, own: int = 0, most: int = 0) -> None:
        """The worker answered.

        `busy`: the number of items that it works on, reported when `own` of our items were done.
        `most`: its limit of items in flight, 0 if it reports none.
        """
        if most > 0:
            self._reported_max = most
        if self.state is State.HALF_OPEN:
            self.state = State.SERVING
        self._failures = 0
        self._ejections = 0
        self._needs_trial = False
        self._trial_failed = False
        if busy is not None:
            self._others_items = max(0, busy - (self.items - own))
            self._others_reported_at = self._answered_at = self._clock()

    def answered_since(self, moment: float) -> bool:
        """Whether results came since a moment, in the clock's seconds.

        A worker whose engine hangs still refuses calls and passes health checks.
        """
        return self._answered_at >= moment

    def failed(self) -> bool:
        """A call failed as a whole. True if the caller has to eject the worker."""
        self._failures += 1
        return self.state is State.HALF_OPEN or self._failures >= FAILURES_BEFORE_EJECTION

    def hold_off(self, seconds: float) -> float:
        """Send no calls for so long, because the worker refused one for lack of room.

        Returns the seconds with jitter. A longer pause stays in effect. Calls refused during a
        pause count as one refusal.
        """
        now = self._clock()
        if self._not_before <= now:
            self._window = max(1, min(self._window, self.items) // 2)
        seconds = min(seconds, LONGEST_HOLD_S) * (1.0 + self._draw() / 2)
        self._not_before = max(self._not_before, now + seconds)
        return seconds

    # -- ejecting and coming back ------------------------------------------------------------

    def eject(self, because_of_calls: bool) -> float:
        """Send nothing from now on; returns the seconds until the next health check."""
        if not because_of_calls:
            # The worker is not reachable. Its next trial says nothing about the last one.
            self._trial_failed = False
        elif self.state is State.HALF_OPEN:
            self._trial_failed = True
        self.state = State.EJECTED
        self._needs_trial |= because_of_calls
        self._failures = 0
        self._ejections += 1
        return backoff_s(self._ejections - 1, FIRST_PAUSE_S, LONGEST_PAUSE_S, self._draw())

    def healthy(self) -> bool:
        """A health check said SERVING. True if that ended an ejection."""
        if self.state is not State.EJECTED:
            return False
        self.state = State.HALF_OPEN if self._needs_trial else State.SERVING
        self._others_items = 0
        return True
