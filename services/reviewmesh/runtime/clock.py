"""Time as an argument: services ask a clock, tests give their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def __call__(self) -> float:
        """Seconds since the epoch."""
        ...


def wall_clock() -> float:
    return time.time()


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
