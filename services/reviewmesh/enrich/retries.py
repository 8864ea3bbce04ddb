"""The retry policy: what happens to the items of a failed call.

A call that never reached a worker is not an attempt: its items go to another worker. When a call
breaks in flight, each of its items counts it; an item with several broken calls is sent alone, so
that one that kills workers is found. A call that fails as a whole is split in half until the item
that fails is alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

from reviewmesh.enrich.breaker import backoff_s
from reviewmesh.enrich.items import Job
from reviewmesh.enrich.jobs import Jobs

BROKEN_IN_COMPANY = 3
BROKEN_ALONE = 10
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
        """No attempt was made."""
        for job in batch:
            self._jobs.wait(job)
        self._loop.call_soon(self._on_waiting)

    def try_again(self, job: Job, reason: str) -> None:
        """Retry with exponential backoff; give up after the last attempt."""
        if job.attempts >= self._max_attempts:
            self._jobs.give_up(job, f"{reason} ({job.attempts} attempts)", may_pass=True)
            return
        pause = backoff_s(job.attempts, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, random.random())
        job.worker, job.again_at = "", self._loop.time() + pause
        self._loop.call_later(pause, self.send_elsewhere, [job])

    def broken(self, batch: Sequence[Job], reason: str) -> None:
        """The call broke in flight, perhaps because of one of its items."""
        for job in batch:
            job.broken += 1
            if job.broken >= BROKEN_IN_COMPANY:
                job.suspect = True
            if job.broken >= BROKEN_IN_COMPANY + BROKEN_ALONE:
                self._jobs.give_up(job, f"workers keep breaking on this item ({reason})")
        self.send_elsewhere([job for job in batch if self._jobs.holds(job)])

    def not_answered(self, batch: Sequence[Job], reason: str) -> None:
        """The deadline was exceeded. Splitting would cost the other items a deadline for each
        half."""
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
                job.limit = max(1, len(batch) // 2)
            self.send_elsewhere(batch)
            return
        [job] = batch
        job.attempts += 1
        if final:
            self._jobs.give_up(job, reason)
        else:
            self.try_again(job, reason)
