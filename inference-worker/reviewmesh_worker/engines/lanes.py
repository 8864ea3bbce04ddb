"""Who is served first: somebody waits for an interactive call, nobody for a backfill.

Whatever has a line orders it by `due`. Interactive calls overtake a backfill, though not for ever:
one that waits for longer than the head start has its turn before interactive calls that come then.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

HEAD_START_S: Final = 30.0
"""A quarter of the time that the mesh gives a call: a backfill that gives way does not run out."""


class Lane(Enum):
    INTERACTIVE = "interactive"
    BACKFILL = "backfill"


def due(lane: Lane, now: float) -> float:
    """The place in line of what came `now`, in seconds of the same clock; the lowest is first."""
    return now + HEAD_START_S if lane is Lane.BACKFILL else now
