"""One worker's circuit breaker, and how many items it may have. Pure: the clock is an argument.

A worker starts ejected and a good health check brings it into traffic. One that was ejected over
its calls is half-open first: one call goes through, and when that is answered the others follow.
What breaks calls is ejected at once, what fails them is ejected after a few in a row, so that a
worker that fails fast does not draw all traffic.

A worker that others fill has no place for all that we would have there, however long we wait: what
it refuses halves that, and each answered call lets it grow by its size. So clients share a worker
with few refusals, and one that has it to itself soon fills it.

A unary call is over when its slowest item is. Where inference is slow, results are streamed, and
the room of those that came is filled again while the others run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

FIRST_PAUSE_S = 0.1
# Longer pauses would leave a worker that is well again idle beside what waits for it.
LONGEST_PAUSE_S = 0.6
LONGEST_HOLD_S = 0.5
FAILURES_BEFORE_EJECTION = 5
SNAPSHOT_HOLDS_S = 5.0
CALLS_PER_WORKER = 8
# Until a worker tells its own.
ITEMS_PER_WORKER = 256
# Fewer free places than this are no call: it costs both sides the same whatever it holds.
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

    # -- choosing ----------------------------------------------------------------------------

    def room(self) -> int:
        """How many items a call may hold now; none while the worker is to be left alone."""
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

    def load(self) -> int:
        """Our items in flight, and those of others by a snapshot that is not too old."""
        fresh = self._clock() - self._others_at < SNAPSHOT_HOLDS_S
        return self.items + (self._others if fresh else 0)

    # -- calls -------------------------------------------------------------------------------

    def started(self, items: int, suspect: bool = False) -> None:
        """A call of a suspect is no trial: its silence says nothing of the worker."""
        self.calls += 1
        self._suspects += suspect
        self.items += items

    def done(self, items: int) -> None:
        """That many of a call's items have their results."""
        self.items -= items

    def ended(self, items: int, suspect: bool = False) -> None:
        """A call is over; `items` of it were without a result until now."""
        self.calls -= 1
        self._suspects -= suspect
        self.items -= items

    def took(self, items: int, seconds: float) -> None:
        """A call of so many was answered, and how long it took."""
        self._share = min(self._share + items, max(self._most, ITEMS_PER_WORKER))
        self._call_s += CALL_SECONDS_SMOOTHING * (seconds - self._call_s)

    def answered(self, busy: int | None = None, own: int = 0, most: int = 0) -> None:
        """The worker did its part; `busy` is its snapshot, taken when `own` items were done.

        `most` is how many items it holds at once, where it told that.
        """
        if most > 0:
            self._most = most
        if self.state is State.HALF_OPEN:
            self.state = State.SERVING
        self._failures = 0
        self._strikes = 0
        self._doubted = False
        if busy is not None:
            self._others = max(0, busy - (self.items - own))
            self._others_at = self._answered_at = self._clock()

    def answered_since(self, moment: float) -> bool:
        """Whether results came: a worker whose engine hangs still refuses and checks well."""
        return self._answered_at >= moment

    def failed(self) -> bool:
        """A call failed as a whole. Whether that is one too many: the caller then ejects."""
        self._failures += 1
        return self.state is State.HALF_OPEN or self._failures >= FAILURES_BEFORE_EJECTION

    def hold_off(self, seconds: float) -> float:
        """No place for a call that is in flight: none for so long; returns the seconds.

        A longer pause that runs stays. What was refused together is one refusal.
        """
        now = self._clock()
        if self._not_before <= now:
            self._share = max(1, min(self._share, self.items) // 2)
        seconds = min(seconds, LONGEST_HOLD_S) * (1.0 + self._draw() / 2)
        self._not_before = max(self._not_before, now + seconds)
        return seconds

    # -- ejecting and coming back ------------------------------------------------------------

    def eject(self, over_calls: bool) -> float:
        """No traffic from now on; returns the seconds to the next health check."""
        self.state = State.EJECTED
        self._doubted |= over_calls
        self._failures = 0
        self._strikes += 1
        return backoff_s(self._strikes - 1, FIRST_PAUSE_S, LONGEST_PAUSE_S, self._draw())

    def healthy(self) -> bool:
        """A health check said SERVING. Whether that brought the worker back."""
        if self.state is not State.EJECTED:
            return False
        self.state = State.HALF_OPEN if self._doubted else State.SERVING
        self._others = 0
        return True
