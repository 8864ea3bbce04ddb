"""Draws confidence sequences over time, a line for each look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from reviewmesh.judge.rollout import Look

WIDTH = 48
LINES = 12


def drawn(looks: Sequence[Look], bound: float) -> Iterator[str]:
    """`looks`: of one metric and slice, in order. The bound is drawn as ┊."""
    shown = _some(looks)
    low = min(bound, *(look.low for look in shown))
    high = max(bound, *(look.high for look in shown))
    span = (high - low) or 1.0

    def at(value: float) -> int:
        return round((value - low) / span * (WIDTH - 1))

    for look in shown:
        line = [" "] * WIDTH
        line[at(look.low) : at(look.high) + 1] = "─" * (at(look.high) - at(look.low) + 1)
        line[at(look.low)], line[at(look.high)] = "├", "┤"
        line[at(bound)] = "┊"
        line[at(look.mean)] = "●"
        yield (
            f"{_time(look.at)} {look.observations:>9,}  {''.join(line)}  "
            f"{look.mean:.3f} [{look.low:.3f}, {look.high:.3f}]"
        )


def _some(looks: Sequence[Look]) -> list[Look]:
    """Spread over all of them; the first and the last are among them."""
    if len(looks) <= LINES:
        return list(looks)
    last = len(looks) - 1
    return [looks[round(number * last / (LINES - 1))] for number in range(LINES)]


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%m-%d %H:%M:%S")
