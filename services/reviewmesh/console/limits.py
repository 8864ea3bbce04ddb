"""How often one person or address may do something."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

# The one that was silent longest is forgotten first.
KEYS_AT_MOST = 10_000


class RateLimit:
    """So many within any span of so many seconds, of each key."""

    def __init__(
        self, at_most: int, within_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.within_s = within_s
        self._at_most = at_most
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def allows(self, key: str) -> bool:
        """Counts it, if it is allowed."""
        now = self._clock()
        times = self._times.setdefault(key, deque())
        self._times.move_to_end(key)
        if len(self._times) > KEYS_AT_MOST:
            self._times.popitem(last=False)
        while times and times[0] <= now - self.within_s:
            times.popleft()
        if len(times) >= self._at_most:
            return False
        times.append(now)
        return True
