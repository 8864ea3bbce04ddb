"""Finds the highest rate that holds by trying rates. Pure: what a trial is, the caller knows."""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.85
STEP_UP = 1.2
STEP_DOWN = 0.75
PRECISION = 1.05


def highest_rate(
    estimate: float, holds: Callable[[float], bool], go_on: Callable[[], bool]
) -> tuple[float, float | None]:
    """The highest rate that held and the lowest that did not; 0 when none held.

    Begins below the estimate, takes ever larger steps up until one rate does not hold, or steps
    down until one does, then goes between the two until they are 5 % apart or `go_on` says no.
    """
    held, failed = 0.0, None
    rate, step = estimate * FIRST, STEP_UP
    while go_on():
        if holds(rate):
            held = rate
        else:
            failed = rate
        if failed is None:
            rate, step = held * step, step * STEP_UP
        elif held == 0.0:
            rate = failed * STEP_DOWN
        elif failed / held < PRECISION:
            break
        else:
            rate = (held * failed) ** 0.5
    return held, failed
