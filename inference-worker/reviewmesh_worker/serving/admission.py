"""Admission control: how many items a worker holds, and when a refused call should retry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from reviewmesh_worker.engines.lanes import Lane

SHORTEST_HINT_MS = 20
LONGEST_HINT_MS = 500
"""Room may become free earlier; clients with a longer hint would leave it unused."""
SMOOTHING: Final = 0.1
BACKFILL_SHARE: Final = 0.75
"""The share of `max_items` that a backfill may use; the rest is reserved for interactive calls."""


class Full(RuntimeError):
    """No room for the call; `retry_after_ms` is the hint."""

    def __init__(self, retry_after_ms: int, message: str) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Admission:
    """Counts items, in one event loop.

    A call larger than `max_items` is admitted when the worker is idle; a backfill call larger than
    the backfill's share, when no other backfill call is in flight.
    """

    def __init__(self, max_items: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_items = max_items
        self.items = 0
        self._backfill = 0
        self._max_backfill = int(max_items * BACKFILL_SHARE)
        self._clock = clock
        # Moving averages: items freed at a time, and seconds between two such times.
        self._freed = 1.0
        self._between_s = 0.005
        self._freed_at = 0.0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admit(self, items: int, lane: Lane = Lane.INTERACTIVE) -> Iterator[Callable[[int], None]]:
        """Yields a function that frees the room of items before the call ends. Raises Full."""
        backfill = lane is Lane.BACKFILL
        self._refuse_over(self.items, items, self.max_items, "items")
        if backfill:
            self._refuse_over(self._backfill, items, self._max_backfill, "items of a backfill")
        if self._empty.is_set():
            self._freed_at = self._clock()
        self._empty.clear()
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            held += count
            self.items += count
            if backfill:
                self._backfill += count

        def free(count: int) -> None:
            hold(-count)
            self._measure(count)

        hold(items)
        try:
            yield free
        finally:
            free(held)
            if not self.items:
                self._empty.set()

    def _refuse_over(self, held: int, items: int, limit: int, what: str) -> None:
        if not held or held + items <= limit:
            return
        seconds = self._between_s / self._freed * (held + items - limit)
        wait_ms = int(1000 * seconds)
        hint = min(max(wait_ms, SHORTEST_HINT_MS), LONGEST_HINT_MS)
        raise Full(hint, f"{held} of {limit} {what} in flight; try again in {hint} ms")

    async def emptied(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; False after the timeout."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def _measure(self, count: int) -> None:
        if count:
            now = self._clock()
            self._freed += SMOOTHING * (count - self._freed)
            self._between_s += SMOOTHING * (now - self._freed_at - self._between_s)
            self._freed_at = now
