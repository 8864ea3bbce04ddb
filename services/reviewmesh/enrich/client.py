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
from reviewmesh.enrich.candidate import Candidate, CandidatePlan
from reviewmesh.enrich.departures import Departure, Step, Steps
from reviewmesh.enrich.fallback import Fallback, FallbackPlan
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.pool import PoolOf
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
        pool: PoolOf | None = None,
        tls: CertificateFiles | None = None,
    ) -> None:
        """`pool`: in place of the task's own workers at `endpoints`, reached over `tls`."""
        self._task = task
        self._primary = pool or PoolOf(
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
        """Withdraw everything and end the thread."""
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
            self._tell(self._submit, tuple(items))

    def completed(self) -> list[tuple[WorkItem, Answer]]:
        """The items answered since the last call; never blocks."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def departing(self) -> list[Step]:
        """What became of texts on their way to the fallback since the last call; never blocks."""
        return self._steps.take()

    def let_leave(self, departure: Departure) -> None:
        """It is reserved."""
        if self._fallback is not None:
            self._tell(self._fallback.let_leave, departure)

    def refuse(self, departure: Departure) -> None:
        """Nothing pays for it."""
        if self._fallback is not None:
            self._tell(self._fallback.refuse, departure)

    def hold_back(self, departure: Departure) -> None:
        """Its record cannot be written."""
        if self._fallback is not None:
            self._tell(self._fallback.hold_back, departure)

    def cancel(self, withdrawn: Callable[[object], bool]) -> None:
        """Withdraw items by their token; a call without remaining items is cancelled."""
        self._tell(self._withdraw, withdrawn)

    def starved(self) -> bool:
        """Whether no answer can come: no worker serves, and fallback and candidate have nothing."""
        others = (self._fallback, self._candidate)
        if any(other is not None and other.has_some() for other in others):
            return False
        return self._calls is not None and not self._calls.pool.any_serving()

    def waiting_for(self) -> str:
        """The addresses tried when no worker serves, and what the fallback does; may be empty."""
        missing = "" if self._calls is None else self._calls.pool.missing()
        fallback = "" if self._fallback is None else self._fallback.words()
        return "; ".join(filter(None, (missing, fallback)))

    def waits_for(self, partition: int, offset: int) -> str:
        """Why an item is not answered yet; empty when it is unknown, or could be sent now."""
        for other in (self._fallback, self._candidate):
            if other is not None and (away := other.waits_for(partition, offset)):
                return away
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
        if not self.closed:
            self._loop.call_soon_threadsafe(action, argument)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _open(self) -> None:
        self._calls = Calls(
            of=self._primary,
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
        rest = items if self._candidate is None else self._candidate.take(items)
        if rest:
            self._calls.submit(rest)

    def _withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """In one go: between two of them an item could go over to one that has let go already."""
        for holder in (self._calls, self._fallback, self._candidate):
            if holder is not None:
                holder.withdraw(withdrawn)

    def _finished(self, item: WorkItem, answer: Answer) -> None:
        if self._candidate is not None:
            answer = self._candidate.marked(item, answer)
        self._done.append((item, answer))
