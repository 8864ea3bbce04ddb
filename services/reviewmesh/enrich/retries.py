"""The retry policy: how the items of a failed call are sent again.

A call that never reached a worker is not an attempt: its items go to another worker. A call that
breaks in flight counts for each of its items. An item with MAX_BROKEN_IN_BATCH such calls is sent
alone, so that an item that kills workers is found, and fails after MAX_BROKEN_ALONE more. A call
that fails as a whole is split in half until the item that fails is alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

from reviewmesh.enrich.breaker import backoff_s
from reviewmesh.enrich.items import Job
from reviewmesh.enrich.jobs import Jobs

MAX_BROKEN_IN_BATCH = 3
MAX_BROKEN_ALONE = 10
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 0.6


class Retries:
    """Used from one event loop; `on_waiting` is called when items are queued again."""

    def __init__(
        self,
        jobs: Jobs,
        loop: asyncio.AbstractEventLoop,
        max_attempts: int,
        on_waiting: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._loop = loop
        self._max_attempts = max_attempts
        self._on_waiting = on_waiting

    def send_elsewhere(self, batch: Iterable[Job]) -> None:
        """Queue the jobs again without counting an attempt."""
        for job in batch:
            self._jobs.wait(job)
        self._loop.call_soon(self._on_waiting)

    def try_again(self, job: Job, reason: str) -> None:
        """Retry with exponential backoff, at most `max_attempts` times."""
        if job.attempts >= self._max_attempts:
            self._jobs.give_up(job, f"{reason} ({job.attempts} attempts)", retryable=True)
            return
        pause = backoff_s(job.attempts, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, random.random())
        job.worker, job.retry_at = "", self._loop.time() + pause
        self._loop.call_later(pause, self.send_elsewhere, [job])

    def call_broke(self, batch: Sequence[Job], reason: str) -> None:
        """Count a call that broke in flight for each of its items, and queue them again.

        An item that kills workers is sent alone later, and given up in the end.
        """
        for job in batch:
            job.broken_calls += 1
            if job.broken_calls >= MAX_BROKEN_IN_BATCH:
                job.suspect = True
            if job.broken_calls >= MAX_BROKEN_IN_BATCH + MAX_BROKEN_ALONE:
                self._jobs.give_up(job, f"workers keep breaking on this item ({reason})")
        self.send_elsewhere([job for job in batch if self._jobs.holds(job)])

    def timed_out(self, batch: Sequence[Job], reason: str) -> None:
        """The call exceeded its deadline: send each item alone.

        After a split into halves the other items would wait for several deadlines.
        """
        for job in batch:
            job.suspect = True
        if len(batch) == 1:
            self.bisect(batch, reason)
        else:
            self.send_elsewhere(batch)

    def bisect(self, batch: Sequence[Job], reason: str, final: bool = False) -> None:
        """Split the items of a call that failed as a whole; `final`: a single item is not
        retried."""
        if len(batch) > 1:
            for job in batch:
                job.max_batch = max(1, len(batch) // 2)
            self.send_elsewhere(batch)
            return
        [job] = batch
        job.attempts += 1
        if final:
            self._jobs.give_up(job, reason)
        else:
            self.try_again(job, reason)
