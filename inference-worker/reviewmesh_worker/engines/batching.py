"""Batches the texts of concurrent calls for one engine thread.

A text is inferred once, however many tasks and calls need it: calls that come while it is queued or
running share its outcome, later ones hit the cache. A text that makes the engine fail does not take
others along: its batch is split in half until the text is alone. Interactive calls go before a
backfill, see `lanes`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from reviewmesh_worker.engines.answer_cache import AnswerCache
from reviewmesh_worker.engines.interface import ItemFailure
from reviewmesh_worker.engines.lanes import Lane, due

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
MAX_BATCH: Final = 32
MAX_WAITING: Final = 4096
# The tasks of a backlog drift apart: the last to send a text should still hit the cache.
MAX_CACHED: Final = 32_768
HANGS_AFTER_S: Final = 120.0
"""A batch that runs longer than this is taken to hang: no caller waits that long."""
MAX_BATCH_CODE_POINTS: Final = 32_000
"""Bounds a batch of long texts, so that a short text does not wait minutes behind it."""


@dataclass(slots=True)
class _Ticket(Generic[T]):
    text: str
    lane: Lane
    due: float
    outcome: asyncio.Future[T | ItemFailure]
    callers: int = 0

    def hurry(self) -> None:
        """An interactive call waits for a text that a backfill queued: move it up."""
        if self.lane is Lane.BACKFILL:
            self.lane = Lane.INTERACTIVE
            self.due = min(self.due, due(self.lane, time.monotonic()))


class Batcher(Generic[T]):
    """Runs `run(texts)` in a thread of its own, one batch at a time.

    `run` returns one output per text, in order, or raises. To be used from one event loop.
    """

    def __init__(
        self,
        run: Callable[[list[str]], Sequence[T]],
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[str, _Ticket[T]] = OrderedDict()
        self._running: dict[str, _Ticket[T]] = {}
        self._cache: AnswerCache[T] = AnswerCache(max_cached)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._began: float | None = None

    @property
    def hangs(self) -> bool:
        """Whether the running batch has not returned within HANGS_AFTER_S."""
        return self._began is not None and time.monotonic() - self._began > HANGS_AFTER_S

    @property
    def running(self) -> int:
        """Texts in the batch being inferred."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._waiting)

    async def submit(self, text: str, lane: Lane = Lane.INTERACTIVE) -> T | ItemFailure:
        """The outcome of one text; cancelling its last caller takes a queued text out."""
        cached = self._cache.get(text)
        if cached is not None:
            return cached
        ticket = self._running.get(text) or self._waiting.get(text)
        if ticket is None:
            if (refusal := self._refusal()) is not None:
                return refusal
            ticket = self._enqueue(text, lane)
        elif lane is Lane.INTERACTIVE:
            ticket.hurry()
        ticket.callers += 1
        try:
            return await asyncio.shield(ticket.outcome)
        finally:
            ticket.callers -= 1
            if ticket.callers == 0 and self._waiting.get(text) is ticket:
                del self._waiting[text]

    async def close(self) -> None:
        """Wait for the running batch; queued texts fail as retryable."""
        self._closed = True
        for ticket in self._waiting.values():
            ticket.outcome.set_result(_closing())
        self._waiting.clear()
        if self._worker is not None and not self.hangs:
            await self._worker
        self._thread.shutdown(wait=False)

    def _refusal(self) -> ItemFailure | None:
        if self._closed:
            return _closing()
        if len(self._waiting) >= self._max_waiting:
            message = f"{self._max_waiting} texts are queued already; retry later"
            return ItemFailure("RESOURCE_EXHAUSTED", message, retryable=True)
        return None

    def _enqueue(self, text: str, lane: Lane) -> _Ticket[T]:
        loop = asyncio.get_running_loop()
        ticket: _Ticket[T] = _Ticket(text, lane, due(lane, time.monotonic()), loop.create_future())
        self._waiting[text] = ticket
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return ticket

    async def _work(self) -> None:
        """Run batches until the queue is empty."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            texts = self._next_batch()
            self._running = {text: self._waiting.pop(text) for text in texts}
            self._began = time.monotonic()
            outcomes = await loop.run_in_executor(self._thread, self._run_bisecting, texts)
            self._began = None
            finished, self._running = self._running, {}
            for ticket, outcome in zip(finished.values(), outcomes, strict=True):
                self._cache.put(ticket.text, outcome)
                ticket.outcome.set_result(outcome)

    def _next_batch(self) -> list[str]:
        """The text that is due first and those closest to it in length, its own lane first."""
        first = min(self._waiting.values(), key=lambda ticket: ticket.due)

        def distance(ticket: _Ticket[T]) -> tuple[bool, int]:
            return ticket.lane is not first.lane, abs(len(ticket.text) - len(first.text))

        batch: list[str] = []
        room = MAX_BATCH_CODE_POINTS
        for ticket in sorted(self._waiting.values(), key=distance)[: self._max_batch]:
            room -= len(ticket.text)
            if batch and room < 0:
                break
            batch.append(ticket.text)
        return batch

    def _run_bisecting(self, texts: list[str]) -> list[T | ItemFailure]:
        try:
            outputs = self._run(texts)
            if len(outputs) != len(texts):
                raise RuntimeError(f"expected {len(texts)} outputs, the engine gave {len(outputs)}")
            return list(outputs)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; one item fails
            if len(texts) == 1:
                _LOG.exception("inference failed on a text of %d code points", len(texts[0]))
                message = f"{type(error).__name__}: {error}"
                return [ItemFailure("INTERNAL", message, retryable=False)]
        half = len(texts) // 2
        return self._run_bisecting(texts[:half]) + self._run_bisecting(texts[half:])


def _closing() -> ItemFailure:
    return ItemFailure("UNAVAILABLE", "the engine is closing; ask another worker", retryable=True)
