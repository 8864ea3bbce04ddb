"""How many items a worker holds at once, and when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHORTEST_HINT_MS = 20
LONGEST_HINT_MS = 5_000


class Full(RuntimeError):
    """No room for the call; `retry_after_ms` is the hint."""

    def __init__(self, retry_after_ms: int, message: str) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Admission:
    """Counts items, in one event loop. A call larger than the limit is let in when it is alone."""

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        self.items = 0
        self._seconds_per_item = 0.005
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admit(self, items: int) -> Iterator[Callable[[int], None]]:
        """Gives what frees the places of items that are done before the call is. Raises Full."""
        if self.items and self.items + items > self.max_items:
            wait_ms = int(1000 * self._seconds_per_item * (self.items + items - self.max_items))
            hint = min(max(wait_ms, SHORTEST_HINT_MS), LONGEST_HINT_MS)
            raise Full(
                hint, f"{self.items} of {self.max_items} items in flight; try again in {hint} ms"
            )
        self.items += items
        self._empty.clear()
        held = items

        def free(count: int) -> None:
            nonlocal held
            held -= count
            self.items -= count

        try:
            yield free
        finally:
            self.items -= held
            if not self.items:
                self._empty.set()

    async def emptied(self, timeout_s: float) -> bool:
        """Wait for what was admitted; False when the time was too short."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def measured(self, items: int, seconds: float) -> None:
        """Moving average of engine time per item, for the hint."""
        self._seconds_per_item += 0.1 * (seconds / max(items, 1) - self._seconds_per_item)
