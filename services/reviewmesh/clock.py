"""Time as an argument: services ask a clock, tests give their own."""

from __future__ import annotations

import time
from typing import Protocol

# The last millisecond of the year 9999, the last one that Python can show.
LAST_MS = 253_402_300_799_999


class Clock(Protocol):
    def __call__(self) -> float:
        """Seconds since the epoch."""
        ...


def wall_clock() -> float:
    return time.time()


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def plausible_ms(timestamp_ms: int) -> bool:
    """Whether it is from 1970 to 9999, so that every reader of the mesh's records can show it."""
    return 0 <= timestamp_ms <= LAST_MS


def bounded_ms(timestamp_ms: int) -> int:
    """The nearest that is plausible: a producer gives its records any timestamp it likes."""
    return min(max(timestamp_ms, 0), LAST_MS)
