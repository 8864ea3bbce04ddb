"""Priorities of calls: somebody waits for an interactive call, nobody for a backfill.

Every queue is ordered by `due`. Interactive calls overtake a backfill, but do not starve it: once a
call of a backfill has waited for HEAD_START_S, it goes before interactive calls that come later.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

HEAD_START_S: Final = 30.0
"""A quarter of the deadline of the mesh's calls, so that overtaken calls still meet it."""


class Lane(Enum):
    INTERACTIVE = "interactive"
    BACKFILL = "backfill"


def due(lane: Lane, now: float) -> float:
    """The sort key of a call that arrived at `now`, in seconds of the same clock; lowest first."""
    return now + HEAD_START_S if lane is Lane.BACKFILL else now
