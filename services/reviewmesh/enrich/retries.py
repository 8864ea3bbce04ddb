"""The retry policy: what becomes of items whose call failed.

A call that never reached a worker is no attempt: its items go to another. A call that broke in
flight counts as broken; an item that keeps breaking is sent alone, so that one that kills workers
is found out in the end. A call that failed as a whole is halved until the item that fails is alone.
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
    """Used from one event loop; `on_waiting` is called when items wait for a call again."""

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
        """After a pause that grows; given up after the last attempt."""
        if job.attempts >= self._max_attempts:
            self._jobs.give_up(job, f"{reason} ({job.attempts} attempts)", may_pass=True)
            return
        pause = backoff_s(job.attempts, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, random.random())
        job.worker, job.again_at = "", self._loop.time() + pause
        self._loop.call_later(pause, self.send_elsewhere, [job])

    def broken(self, batch: Sequence[Job], reason: str) -> None:
        """The call broke in flight: perhaps over one of its items."""
        for job in batch:
            job.broken += 1
            if job.broken >= BROKEN_IN_COMPANY:
                job.suspect = True
            if job.broken >= BROKEN_IN_COMPANY + BROKEN_ALONE:
                self._jobs.give_up(job, f"workers keep breaking on this item ({reason})")
        self.send_elsewhere([job for job in batch if self._jobs.holds(job)])

    def not_answered(self, batch: Sequence[Job], reason: str) -> None:
        """The deadline came: halving would cost the innocent ones a deadline for each half."""
        for job in batch:
            job.suspect = True
        if len(batch) == 1:
            self.bisect(batch, reason)
        else:
            self.send_elsewhere(batch)

    def bisect(self, batch: Sequence[Job], reason: str, final: bool = False) -> None:
        """The call failed as a whole; `final`: an item that is alone has failed for good."""
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
