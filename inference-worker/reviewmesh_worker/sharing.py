"""Answers shared between calls: a text is inferred once, however many tasks and calls ask for it.

For an engine that batches by itself; see `batching` for one that does not.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from reviewmesh_worker.batching import digest_of
from reviewmesh_worker.engines.interface import ItemFailure

T = TypeVar("T")

MAX_REMEMBERED: Final = 4096


class Shared(Generic[T]):
    """Runs `run(text)` once for calls that overlap, and remembers what it gave for later ones.

    To be used from one event loop.
    """

    def __init__(
        self,
        run: Callable[[str], Awaitable[T | ItemFailure]],
        *,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self._run = run
        self._max_remembered = max_remembered
        self._running: dict[str, _Running[T]] = {}
        # Keyed by digest: the texts themselves may be large.
        self._remembered: OrderedDict[bytes, T] = OrderedDict()

    async def ask(self, text: str) -> T | ItemFailure:
        """Cancelling withdraws the text if nobody else waits for it. Raises what `run` raises."""
        digest = digest_of(text)
        if digest in self._remembered:
            self._remembered.move_to_end(digest)
            return self._remembered[digest]
        running = self._running.get(text)
        if running is None:
            running = self._running[text] = _Running(asyncio.ensure_future(self._run(text)))
        running.callers += 1
        try:
            outcome = await asyncio.shield(running.task)
        finally:
            running.callers -= 1
            if running.callers == 0:
                running.task.cancel()
                if self._running.get(text) is running:
                    del self._running[text]
        # Failures are not remembered: their cause may be mended.
        if not isinstance(outcome, ItemFailure):
            self._remembered[digest] = outcome
            if len(self._remembered) > self._max_remembered:
                self._remembered.popitem(last=False)
        return outcome


class _Running(Generic[T]):
    def __init__(self, task: asyncio.Future[T | ItemFailure]) -> None:
        self.task = task
        self.callers = 0
