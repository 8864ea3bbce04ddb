"""The inference client of the polling thread: submits items, collects answers, never blocks.

A thread with its own event loop makes the calls. The caller bounds how many items are in the
client; without a worker they wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from reviewmesh import metrics
from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.jobs import Jobs

T = TypeVar("T")


class InferenceClient:
    """The client for one task. Used by the polling thread."""

    def __init__(
        self,
        task: str,
        endpoints: Sequence[str],
        batch_items: int = 32,
        batch_bytes: int = 1024 * 1024,
        call_timeout_s: float = 120.0,
        max_attempts: int = 5,
    ) -> None:
        self._task = task
        self._endpoints = tuple(endpoints)
        self._call_timeout_s = call_timeout_s
        self._max_attempts = max_attempts
        self._done: deque[tuple[WorkItem, Answer]] = deque()
        self._jobs = Jobs(
            batch_items, batch_bytes, lambda item, answer: self._done.append((item, answer))
        )
        self._calls: Calls | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"inference-{task}", daemon=True)

    def start(self) -> None:
        metrics.INFERENCE_WAITING.labels(self._task).set_function(lambda: self._jobs.waiting)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(timeout=10)

    def close(self) -> None:
        """Withdraw everything and end the thread."""
        if self._closed or not self._thread.is_alive():
            return
        self._closed = True
        if self._calls is not None:
            asyncio.run_coroutine_threadsafe(self._calls.close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def submit(self, items: Sequence[WorkItem]) -> None:
        if self._calls is not None:
            self._tell(self._calls.submit, tuple(items))

    def completed(self) -> list[tuple[WorkItem, Answer]]:
        """The items answered since the last call; never blocks."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def cancel(self, withdrawn: Callable[[object], bool]) -> None:
        """Withdraw items by their token; a call without remaining items is cancelled."""
        if self._calls is not None:
            self._tell(self._calls.withdraw, withdrawn)

    def missing(self) -> str:
        """The addresses tried when no worker serves; empty otherwise."""
        return "" if self._calls is None else self._calls.pool.missing()

    def waits_for(self, partition: int, offset: int) -> str:
        """Why an item is not answered yet; empty when it is unknown, or could be sent now."""
        job = self._jobs.find(partition, offset)
        if job is None or self._calls is None:
            return ""
        now = self._loop.time()
        if missing := self._calls.pool.missing():
            return missing
        if job.worker:
            return f"the worker at {job.worker} has had it for {now - job.since:.0f} s"
        if job.again_at > now:
            return f"it is tried again in {job.again_at - now:.1f} s"
        if not self._calls.pool.has_room():
            return "it waits for room at a worker"
        return "it failed whole calls and waits to be tried alone" if job.suspect else ""

    def _tell(self, action: Callable[[T], None], argument: T) -> None:
        # Partitions are revoked after the stage has stopped. The client then holds nothing, and the
        # next owner of a partition reads its records again.
        if not self._closed:
            self._loop.call_soon_threadsafe(action, argument)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _open(self) -> None:
        self._calls = Calls(
            task=self._task,
            endpoints=self._endpoints,
            jobs=self._jobs,
            call_timeout_s=self._call_timeout_s,
            max_attempts=self._max_attempts,
        )
