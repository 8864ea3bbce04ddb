"""Finds the highest rate that holds by trying rates. Pure: what a trial is, the caller knows."""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.85
STEP_UP = 1.2
STEP_DOWN = 0.75
PRECISION = 1.05


def highest_rate(
    estimate: float, holds: Callable[[float], bool], trials: int
) -> tuple[float, float | None]:
    """The highest rate that held and the lowest that did not; 0 when none held.

    Begins below the estimate, steps until one rate held and one did not, then goes between them
    until they are 5 % apart or the trials are used up.
    """
    held, failed = 0.0, None
    rate = estimate * FIRST
    for _ in range(trials):
        if holds(rate):
            held = rate
        else:
            failed = rate
        if failed is None:
            rate = held * STEP_UP
        elif held == 0.0:
            rate = failed * STEP_DOWN
        elif failed / held < PRECISION:
            break
        else:
            rate = (held * failed) ** 0.5
    return held, failed
