"""Estimates a group's rate of finished records, and the time to drain its backlog."""

from __future__ import annotations

import math
from collections import deque

WINDOW_S = 60.0


class DrainRate:
    """One group on one topic. Idle time does not count."""

    def __init__(self) -> None:
        # (when, records finished so far); the last one from before the backlog is kept too.
        self._seen: deque[tuple[float, int]] = deque()
        self._rate = 0.0

    def observe(self, now: float, finished: int, backlog: int) -> float:
        """Seconds until `backlog` is drained; infinite when nothing moves.

        Time and `finished` only grow, except after a reset of the group or the clock: then the
        measurement starts again.
        """
        if self._seen and (finished < self._seen[-1][1] or now <= self._seen[-1][0]):
            self._seen.clear()
        self._seen.append((now, finished))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()
        since, before = self._seen[0]
        if finished > before:
            self._rate = (finished - before) / (now - since)
        elif now - since >= WINDOW_S and backlog:
            self._rate = 0.0
        if not backlog:
            # The next backlog is measured from here.
            self._seen.clear()
            self._seen.append((now, finished))
            return 0.0
        return backlog / self._rate if self._rate else math.inf
