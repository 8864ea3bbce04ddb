"""The highest rate that holds, found by trying. Pure."""

from __future__ import annotations

from collections.abc import Callable

GROWTH = 2.0
PRECISION = 1.05
STEP_DOWN = 0.9
CONFIRMED_BEYOND = 3


def highest_rate(
    first: float,
    holds: Callable[[float], bool],
    confirms: Callable[[float], bool],
    may_go_on: Callable[[], bool],
    lowest: float,
) -> float:
    """Doubles the rate until it does not hold, narrows the gap, and confirms what is left.

    `confirms`: as `holds`, for longer: of many tries the highest that held was also lucky.
    `may_go_on`: whether there is time for another try; beyond it CONFIRMED_BEYOND tries confirm
    what held. Nothing below `lowest` is tried. Gives 0 when nothing was confirmed.
    """
    low, high, failed = 0.0, first, False
    while may_go_on() and high >= lowest:
        if holds(high):
            low, high = high, high * GROWTH
            if failed:
                break
        elif low:
            break
        else:
            high /= GROWTH
            failed = True
    while low and high / low > PRECISION and may_go_on():
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    beyond = 0
    while low >= lowest and beyond < CONFIRMED_BEYOND:
        beyond += not may_go_on()
        if confirms(low):
            return low
        low *= STEP_DOWN
    return 0.0
