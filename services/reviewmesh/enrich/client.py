"""The inference client of the polling thread: submits items, collects answers, never blocks.

A thread with its own event loop makes the calls. The caller limits how many items are in the
client. Without a worker they wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from reviewmesh import metrics
from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.candidate import Candidate, CandidatePlan
from reviewmesh.enrich.departures import Departure, Step, Steps
from reviewmesh.enrich.fallback import Fallback, FallbackPlan
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.routes import PRIMARY
from reviewmesh_kit.certificates import CertificateFiles
from reviewmesh_kit.settings import variable
from reviewmesh_protos.inference.v1 import inference_pb2

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
        fallback: FallbackPlan | None = None,
        candidate: CandidatePlan | None = None,
        lane: inference_pb2.Lane.ValueType = inference_pb2.LANE_INTERACTIVE,
        pool: PoolConfig | None = None,
        tls: CertificateFiles | None = None,
    ) -> None:
        """`pool`: in place of the task's own workers at `endpoints`, reached over `tls`."""
        self._task = task
        self._primary = pool or PoolConfig(
            task,
            tuple(endpoints),
            variable("workers", task),
            metrics.WORKERS_SERVING.labels(task),
            metrics.CALLS.labels(task, PRIMARY),
            tls=tls,
        )
        self._plan = fallback
        self._candidate_plan = candidate
        self._call_timeout_s = call_timeout_s
        self._max_attempts = max_attempts
        self._lane = lane
        self._steps = Steps()
        self._done: deque[tuple[WorkItem, Answer]] = deque()
        self._jobs = Jobs(batch_items, batch_bytes, self._finished)
        self._calls: Calls | None = None
        self._fallback: Fallback | None = None
        self._candidate: Candidate | None = None
        self.closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"inference-{task}", daemon=True)

    def start(self) -> None:
        if self._lane == inference_pb2.LANE_INTERACTIVE:
            metrics.INFERENCE_WAITING.labels(self._task).set_function(lambda: self._jobs.waiting)
        if self._candidate_plan is not None:
            self._candidate_plan.rollouts.start()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(timeout=10)

    def close(self) -> None:
        """Withdraw all items and end the thread."""
        if self.closed or not self._thread.is_alive():
            return
        self.closed = True
        if self._candidate_plan is not None:
            self._candidate_plan.rollouts.stop()
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def submit(self, items: Sequence[WorkItem]) -> None:
        if self._calls is not None:
            self._call_in_loop(self._submit, tuple(items))

    def completed(self) -> list[tuple[WorkItem, Answer]]:
        """The items answered since the last call; never blocks."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def departure_steps(self) -> list[Step]:
        """The steps of texts that leave for the fallback since the last call; never blocks."""
        return self._steps.take()

    def reservation_committed(self, departure: Departure) -> None:
        """The reservation of a text is committed: it may be sent."""
        if self._fallback is not None:
            self._call_in_loop(self._fallback.reservation_committed, departure)

    def reservation_refused(self, departure: Departure) -> None:
        """No budget pays for a text: it waits for a primary worker."""
        if self._fallback is not None:
            self._call_in_loop(self._fallback.reservation_refused, departure)

    def reservation_rejected(self, departure: Departure) -> None:
        """The broker rejects the record of a reservation: the text waits and pauses."""
        if self._fallback is not None:
            self._call_in_loop(self._fallback.reservation_rejected, departure)

    def cancel(self, withdrawn: Callable[[object], bool]) -> None:
        """Drop the items whose token `withdrawn` accepts; cancel calls without remaining items."""
        self._call_in_loop(self._withdraw, withdrawn)

    def starved(self) -> bool:
        """Whether no answer can come: no worker serves, and no item is in fallback or candidate."""
        others = (self._fallback, self._candidate)
        if any(other is not None and other.has_jobs() for other in others):
            return False
        return self._calls is not None and not self._calls.pool.any_serving()

    def waiting_for(self) -> str:
        """The addresses tried if no worker serves, and the fallback's status; may be empty."""
        missing = "" if self._calls is None else self._calls.pool.missing()
        fallback = "" if self._fallback is None else self._fallback.status()
        return "; ".join(filter(None, (missing, fallback)))

    def waits_for(self, partition: int, offset: int) -> str:
        """Why an item is not answered yet; empty if it is unknown or could be sent now."""
        for other in (self._fallback, self._candidate):
            if other is not None and (reason := other.waits_for(partition, offset)):
                return reason
        job = self._jobs.find(partition, offset)
        if job is None or self._calls is None:
            return ""
        now = self._loop.time()
        if missing := self._calls.pool.missing():
            return missing
        if job.worker:
            return f"the worker at {job.worker} has had it for {now - job.sent_at:.0f} s"
        if job.retry_at > now:
            return f"it is tried again in {job.retry_at - now:.1f} s"
        if not self._calls.pool.has_room():
            return "it waits for room at a worker"
        return "it failed whole calls and waits to be tried alone" if job.suspect else ""

    def _call_in_loop(self, action: Callable[[T], None], argument: T) -> None:
        # Partitions are also revoked after the stage has stopped. The client is then empty, and the
        # next owner of a partition reads its records again.
        if not self.closed:
            self._loop.call_soon_threadsafe(action, argument)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _open(self) -> None:
        self._calls = Calls(
            config=self._primary,
            jobs=self._jobs,
            call_timeout_s=self._call_timeout_s,
            max_attempts=self._max_attempts,
            lane=self._lane,
        )
        if self._plan is not None:
            self._fallback = Fallback(
                plan=self._plan,
                primary=self._calls,
                jobs=self._jobs,
                on_finished=self._finished,
                steps=self._steps,
                call_timeout_s=self._call_timeout_s,
                max_attempts=self._max_attempts,
            )

        if self._candidate_plan is not None:
            self._candidate = Candidate(
                plan=self._candidate_plan,
                to_primary=self._calls.submit,
                on_finished=self._finished,
            )

    async def _shut(self) -> None:
        if self._candidate is not None:
            await self._candidate.close()
        if self._fallback is not None:
            await self._fallback.close()
        if self._calls is not None:
            await self._calls.close()

    def _submit(self, items: Sequence[WorkItem]) -> None:
        assert self._calls is not None
        primary_items = items if self._candidate is None else self._candidate.take_canaries(items)
        if primary_items:
            self._calls.submit(primary_items)

    def _withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """Withdraw everywhere in one callback of the loop, so that no item moves in between."""
        for holder in (self._calls, self._fallback, self._candidate):
            if holder is not None:
                holder.withdraw(withdrawn)

    def _finished(self, item: WorkItem, answer: Answer) -> None:
        if self._candidate is not None:
            answer = self._candidate.with_candidate_error(item, answer)
        self._done.append((item, answer))
