"""Clocks as arguments: tests pass their own."""

from __future__ import annotations

import time
from typing import Protocol

# The last millisecond of the year 9999, the last that Python can represent.
LAST_MS = 253_402_300_799_999


class Clock(Protocol):
    def __call__(self) -> float:
        """Seconds since the epoch."""
        ...


def wall_clock() -> float:
    return time.time()


def is_over(at: float, now: float, pause_s: float) -> bool:
    """Whether a pause of so many seconds, which was to end `at`, is over: also where the clock was
    set back meanwhile, or was ahead when the pause began."""
    return not now < at <= now + pause_s


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def plausible_ms(timestamp_ms: int) -> bool:
    """Whether it is between 1970 and 9999, so that every reader can represent it."""
    return 0 <= timestamp_ms <= LAST_MS


def bounded_ms(timestamp_ms: int) -> int:
    """The nearest plausible time: producers may set any timestamp."""
    return min(max(timestamp_ms, 0), LAST_MS)
