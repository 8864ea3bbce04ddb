"""How far a task's results have come, and for how long later results have overtaken a review."""

from __future__ import annotations

from collections import deque


class TaskProgress:
    """Finds the accepted offsets that a task has overtaken for `straggler_s`.

    For these the enricher is asked; see `pipeline`. Only time in which results arrive counts: while
    all workers of a task are gone the clock stops, so that items in flight are not stragglers when
    the workers return.
    """

    def __init__(self, straggler_s: float) -> None:
        self._straggler_s = straggler_s
        self._largest_gap_s = max(1.0, straggler_s / 10)
        self._flowed_s = 0.0
        self._last_result: float | None = None
        self.furthest = -1
        # (time with results, furthest accepted offset by then), about one per second.
        self._history: deque[tuple[float, int]] = deque()
        self.straggler_bound = -1
        # The task's partition has been read to the end that it had at this moment.
        self.read_to_end_as_of = float("-inf")

    def result(self, accepted_offset: int, now: float) -> None:
        if self._last_result is not None:
            self._flowed_s += min(max(now - self._last_result, 0.0), self._largest_gap_s)
        self._last_result = now
        self.furthest = max(self.furthest, accepted_offset)
        step = min(1.0, self._straggler_s / 10)
        if not self._history or self._flowed_s - self._history[-1][0] >= step:
            self._history.append((self._flowed_s, self.furthest))
        while self._history and self._flowed_s - self._history[0][0] >= self._straggler_s:
            self.straggler_bound = self._history.popleft()[1]
