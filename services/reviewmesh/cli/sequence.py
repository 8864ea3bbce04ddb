"""Draws confidence sequences over time, a line for each look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from reviewmesh.judge.rollout import Look

WIDTH = 48
NARROWEST = 20
LINES = 12
# What stands before and behind the drawing.
BEFORE, BEHIND = 26, 23


def drawn(looks: Sequence[Look], bound: float, room: int) -> Iterator[str]:
    """`looks`: of one metric and slice, in order. The bound is drawn as ┊.

    `room`: columns that there are; where they are few, the figures of a look stand above it.
    """
    shown = _some(looks)
    beside = min(WIDTH, room - BEFORE - BEHIND)
    is_beside = beside >= NARROWEST
    width = beside if is_beside else min(WIDTH, room)
    low = min(bound, *(look.low for look in shown))
    high = max(bound, *(look.high for look in shown))
    span = (high - low) or 1.0

    def at(value: float) -> int:
        return round((value - low) / span * (width - 1))

    for look in shown:
        line = [" "] * width
        line[at(look.low) : at(look.high) + 1] = "─" * (at(look.high) - at(look.low) + 1)
        line[at(look.low)], line[at(look.high)] = "├", "┤"
        line[at(bound)] = "┊"
        line[at(look.mean)] = "●"
        when, picture = f"{_time(look.at)} {look.observations:>9,}", "".join(line)
        figures = f"{look.mean:.3f} [{look.low:.3f}, {look.high:.3f}]"
        if is_beside:
            yield f"{when}  {picture}  {figures}"
            continue
        yield from (
            (f"{when}  {figures}",) if len(when) + 2 + len(figures) <= room else (when, figures)
        )
        yield picture


def _some(looks: Sequence[Look]) -> list[Look]:
    """Spread over all of them; the first and the last are among them."""
    if len(looks) <= LINES:
        return list(looks)
    last = len(looks) - 1
    return [looks[round(number * last / (LINES - 1))] for number in range(LINES)]


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%m-%d %H:%M:%S")
