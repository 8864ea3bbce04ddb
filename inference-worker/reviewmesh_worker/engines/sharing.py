"""Answers shared between calls: a text is inferred once, however many tasks and calls ask for it.

But for one case: what an engine has taken in for a backfill it would not hurry, so an interactive
call that asks for the same meanwhile has it inferred again.

For an engine that batches by itself; see `batching` for one that does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from reviewmesh_worker.engines.answer_cache import AnswerCache
from reviewmesh_worker.engines.interface import ItemFailure
from reviewmesh_worker.engines.lanes import Lane

T = TypeVar("T")

MAX_CACHED: Final = 4096


class Shared(Generic[T]):
    """Runs `run(text, lane)` once for calls that overlap; later ones find what it gave remembered.

    To be used from one event loop.
    """

    def __init__(
        self,
        run: Callable[[str, Lane], Awaitable[T | ItemFailure]],
        *,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._run = run
        self._running: dict[tuple[str, Lane], _Running[T]] = {}
        self._cache: AnswerCache[T] = AnswerCache(max_cached)

    async def ask(self, text: str, lane: Lane = Lane.INTERACTIVE) -> T | ItemFailure:
        """Cancelling withdraws the text if nobody else waits for it. Raises what `run` raises."""
        known = self._cache.get(text)
        if known is not None:
            return known
        key = (text, Lane.INTERACTIVE)
        if key not in self._running:
            key = (text, lane)
        running = self._running.get(key)
        if running is None:
            running = _Running(asyncio.ensure_future(self._run(text, lane)))
            self._running[key] = running
        running.callers += 1
        try:
            outcome = await asyncio.shield(running.task)
        finally:
            running.callers -= 1
            if running.callers == 0:
                running.task.cancel()
                if self._running.get(key) is running:
                    del self._running[key]
        self._cache.put(text, outcome)
        return outcome


class _Running(Generic[T]):
    def __init__(self, task: asyncio.Future[T | ItemFailure]) -> None:
        self.task = task
        self.callers = 0
