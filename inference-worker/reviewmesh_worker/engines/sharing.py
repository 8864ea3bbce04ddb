"""Concurrent calls with the same text share one inference; later ones hit the cache.

What an inference took is counted once: in the outcome of the first call that gets it.

One exception: an engine does not move up a text that it accepted for a backfill, so an interactive
call with the same text starts a second inference.

For an engine that batches by itself; see `batching` for one that does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from reviewmesh_worker.engines.answer_cache import AnswerCache
from reviewmesh_worker.engines.interface import ItemFailure, Usage
from reviewmesh_worker.engines.lanes import Lane


class HasUsage(Protocol):
    """A dataclass with a usage."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def usage(self) -> Usage: ...


T = TypeVar("T", bound=HasUsage)

MAX_CACHED: Final = 4096


class Shared(Generic[T]):
    """Runs `run(text, lane)` once for calls that overlap, and caches its outcome for later ones.

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

    async def infer(self, text: str, lane: Lane = Lane.INTERACTIVE) -> T | ItemFailure:
        """The outcome of one text. Cancelling the last caller cancels the run. Raises as `run`."""
        cached = self._cache.get(text)
        if cached is not None:
            return cached
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
        self._cache.put(text, _counted_elsewhere(outcome))
        first, running.counted = not running.counted, True
        return outcome if first else _counted_elsewhere(outcome)


class _Running(Generic[T]):
    def __init__(self, task: asyncio.Future[T | ItemFailure]) -> None:
        self.task = task
        self.callers = 0
        self.counted = False


def _counted_elsewhere(outcome: T | ItemFailure) -> T | ItemFailure:
    return replace(outcome, usage=outcome.usage.counted_elsewhere())
