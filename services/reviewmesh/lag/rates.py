"""How fast a group was seen to finish records, and how long its backlog takes at that rate."""

from __future__ import annotations

import math
from collections import deque

WINDOW_S = 60.0


class DrainRate:
    """One group on one topic. Idle time is no measure of how fast it can work."""

    def __init__(self) -> None:
        # (when, records finished so far); the last one from before the backlog is kept too.
        self._seen: deque[tuple[float, int]] = deque()
        self._rate = 0.0

    def observe(self, now: float, finished: int, backlog: int) -> float:
        """Seconds until `backlog` is worked off; infinite when nothing of it moves.

        Both only ever grow, except when an operator sets the group back or somebody the clock:
        then measuring begins anew.
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
            # What comes next is measured from here on.
            self._seen.clear()
            self._seen.append((now, finished))
            return 0.0
        return backlog / self._rate if self._rate else math.inf
