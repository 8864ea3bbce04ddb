"""When records arrived, as far as the ends of their partitions tell.

The timestamp of a record is the broker's, and a broker's clock may be off by minutes: records that
wait would look as if they had just come, or new ones as if they had waited. But a record that was
beyond the end a second ago is a second old, whatever its timestamp says.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

# Fewer looks give wider bounds, never wrong ones.
MOST_LOOKS = 1_000


@dataclass(slots=True)
class EndSeen:
    """One end of a partition, as it was seen by one or more measurements."""

    end: int
    first_at: float
    """When its answer had come, the first time: what is before the end was there."""
    last_at: float
    """When it was asked for, the last time: what is beyond the end was not there."""


class Arrivals:
    """Of one partition."""

    def __init__(self) -> None:
        self._looks: deque[EndSeen] = deque()
        self._topic_id = 0

    def saw(self, end: int, topic_id: int, asked_at: float, answered_at: float) -> None:
        last = self._looks[-1] if self._looks else None
        if last is not None and (topic_id != self._topic_id or end < last.end):
            # The topic was created again, and has other records.
            self._looks.clear()
            last = None
        self._topic_id = topic_id
        if last is not None and last.end == end:
            last.last_at = max(last.last_at, asked_at)
            return
        self._looks.append(EndSeen(end, answered_at, asked_at))
        if len(self._looks) > MOST_LOOKS:
            self._looks = deque([*list(self._looks)[:-2:2], self._looks[-2], self._looks[-1]])

    def arrived_at(self, offset: int, timestamp_s: float) -> float:
        """When the record arrived: its timestamp, unless that cannot be."""
        not_before, not_after = -math.inf, math.inf
        for look in self._looks:
            if look.end > offset:
                not_after = look.first_at
                break
            not_before = look.last_at
        return min(max(timestamp_s, not_before), not_after)
