"""One worker's circuit breaker, and how many items it may have in flight. Pure: the clock is an
argument.

A worker starts ejected, and a health check that says SERVING brings it into traffic. After an
ejection because of its calls the breaker is half-open first: one call goes through, and the others
follow when that one is answered. A worker is ejected at once when a call breaks, and after a few
failed calls in a row, so that a worker that fails fast does not attract all traffic.

The limit of items in flight adapts as in TCP: a refusal halves it, each answered call raises it by
its size. So several clients share a worker with few refusals, and a single client soon fills it.

A unary call ends with its slowest item. Where inference is slow, results are streamed, and each
result makes room for another item while the rest of the call still runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

FIRST_PAUSE_S = 0.1
# Longer pauses would leave a worker that has recovered idle while items wait.
LONGEST_PAUSE_S = 0.6
LONGEST_HOLD_S = 0.5
FAILURES_BEFORE_EJECTION = 5
SNAPSHOT_HOLDS_S = 5.0
CALLS_PER_WORKER = 8
# Until a worker has reported its own limit.
ITEMS_PER_WORKER = 256
# Less room than this is not worth a call: a call costs both sides the same whatever its size.
SMALLEST_ROOM = 16
SLOW_CALL_S = 0.05
CALL_SECONDS_SMOOTHING = 0.2


def backoff_s(failures: int, first_s: float, longest_s: float, draw: float) -> float:
    """Doubles with each failure up to `longest_s`; `draw` in [0, 1) spreads it by half."""
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
        self._most = ITEMS_PER_WORKER
        self._share = ITEMS_PER_WORKER
        self._call_s = 0.0
        self._not_before = 0.0
        self._others = 0
        self._others_at = float("-inf")
        self._failures = 0
        self._strikes = 0
        self._doubted = False
        self._trial_failed = False

    # -- choosing ----------------------------------------------------------------------------

    def room(self) -> int:
        """How many items a call may hold now; 0 while the breaker lets no call through."""
        if self.state is State.EJECTED or self._not_before > self._clock():
            return 0
        most = min(self._most, self._share)
        if self.state is State.HALF_OPEN:
            return 0 if self.calls > self._suspects else most
        if self.calls >= CALLS_PER_WORKER and not self.is_slow():
            return 0
        free = most - self.items
        return free if free >= min(SMALLEST_ROOM, most) else 0

    def is_slow(self) -> bool:
        """Whether calls take so long that their results are better streamed."""
        return self._call_s > SLOW_CALL_S

    def fails_trials(self) -> bool:
        """Whether its last trial call failed, though it passes health checks."""
        return self._trial_failed

    def load(self) -> int:
        """Our items in flight plus those of other clients, by a snapshot that is recent enough."""
        fresh = self._clock() - self._others_at < SNAPSHOT_HOLDS_S
        return self.items + (self._others if fresh else 0)

    # -- calls -------------------------------------------------------------------------------

    def started(self, items: int, suspect: bool = False) -> None:
        """A suspect's call does not count as the half-open trial: its timeout may be the item's
        fault."""
        self.calls += 1
        self._suspects += suspect
        self.items += items

    def done(self, items: int) -> None:
        """So many items of a call have their results."""
        self.items -= items

    def ended(self, items: int, suspect: bool = False) -> None:
        """A call has ended; `items` of it had no result until now."""
        self.calls -= 1
        self._suspects -= suspect
        self.items -= items

    def took(self, items: int, seconds: float) -> None:
        """A call of so many items was answered after so many seconds."""
        self._share = min(self._share + items, max(self._most, ITEMS_PER_WORKER))
        self._call_s += CALL_SECONDS_SMOOTHING * (seconds - self._call_s)

    def answered(self, busy: int | None = None, own: int = 0, most: int = 0) -> None:
        """The worker answered. `busy`: its load, taken when `own` items of ours were done.

        `most`: its limit of items in flight, 0 where it did not report one.
        """
        if most > 0:
            self._most = most
        if self.state is State.HALF_OPEN:
            self.state = State.SERVING
        self._failures = 0
        self._strikes = 0
        self._doubted = False
        self._trial_failed = False
        if busy is not None:
            self._others = max(0, busy - (self.items - own))
            self._others_at = self._answered_at = self._clock()

    def answered_since(self, moment: float) -> bool:
        """Whether results came: a worker whose engine hangs still refuses calls and passes health
        checks."""
        return self._answered_at >= moment

    def failed(self) -> bool:
        """A call failed as a whole. True when the caller has to eject the worker."""
        self._failures += 1
        return self.state is State.HALF_OPEN or self._failures >= FAILURES_BEFORE_EJECTION

    def hold_off(self, seconds: float) -> float:
        """The worker refused a call for lack of room: send none for so long; returns the seconds.

        A longer pause stays in effect. Calls refused during a pause count as one refusal.
        """
        now = self._clock()
        if self._not_before <= now:
            self._share = max(1, min(self._share, self.items) // 2)
        seconds = min(seconds, LONGEST_HOLD_S) * (1.0 + self._draw() / 2)
        self._not_before = max(self._not_before, now + seconds)
        return seconds

    # -- ejecting and coming back ------------------------------------------------------------

    def eject(self, over_calls: bool) -> float:
        """Send nothing from now on; returns the seconds until the next health check."""
        if not over_calls:
            # It is away: when it is back, it is another try.
            self._trial_failed = False
        elif self.state is State.HALF_OPEN:
            self._trial_failed = True
        self.state = State.EJECTED
        self._doubted |= over_calls
        self._failures = 0
        self._strikes += 1
        return backoff_s(self._strikes - 1, FIRST_PAUSE_S, LONGEST_PAUSE_S, self._draw())

    def healthy(self) -> bool:
        """A health check said SERVING. True when that ended an ejection."""
        if self.state is not State.EJECTED:
            return False
        self.state = State.HALF_OPEN if self._doubted else State.SERVING
        self._others = 0
        return True
