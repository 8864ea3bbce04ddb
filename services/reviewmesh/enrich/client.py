"""Sends items to inference workers: batches, retries, bisection, cancellation.

The client has a thread with an event loop of its own; the polling thread hands items in and
fetches what is finished, and never waits. What it holds is bounded by what the caller submits.

A call that never reached a worker is no attempt: items wait for as long as no worker is there. A
call that broke in flight counts as broken; an item that keeps breaking is sent alone, so that one
that kills workers is found out in the end.

An item that a call came to nothing over is a suspect: it is sent alone, few of them at once, and is
no worker's trial while anything else waits. So one that no worker ever answers costs its own time
and not that of all the others.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from reviewmesh import metrics
from reviewmesh.enrich.pool import Worker, WorkerPool
from reviewmesh.enrich.standing import State, backoff_s
from reviewmesh.enrich.waiting import OldestFirst
from reviewmesh_protos.inference.v1 import inference_pb2

T = TypeVar("T")
Response = inference_pb2.InferResponse | inference_pb2.InferStreamResponse
Output = inference_pb2.NerOutput | inference_pb2.TopicOutput | inference_pb2.SentimentOutput

BROKEN_IN_COMPANY = 3
BROKEN_ALONE = 10
SUSPECTS_AT_ONCE = 4
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 0.6
RETRY_AFTER = "retry-after-ms"
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
NEVER_REACHED = ("failed to connect", "draining", "loading", "name resolution", "dns")


@dataclass(frozen=True, slots=True)
class WorkItem:
    token: object
    partition: int
    offset: int
    text: str
    language: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An output, or the final error; `attempts` counts calls that reached a worker."""

    output: Output | None
    error: str | None
    attempts: int
    lineage: inference_pb2.Lineage | None
    usage: inference_pb2.Usage | None


@dataclass(slots=True, eq=False)
class Job:
    item: WorkItem
    limit: int
    attempts: int = 0
    broken: int = 0
    withdrawn: bool = False
    suspect: bool = False
    # Where it is, by the clock of the event loop: at a worker since, or to be tried again at.
    worker: str = ""
    since: float = 0.0
    again_at: float = 0.0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.item.text) * 4 + len(self.item.language) + 128


@dataclass(slots=True)
class Call:
    worker: Worker
    # What it is still to answer, by the item's id within the call.
    unanswered: dict[str, Job]
    suspect: bool
    hung: bool = False

    def is_withdrawn(self) -> bool:
        return all(job.withdrawn for job in self.unanswered.values())


class InferenceClient:
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
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._call_timeout_s = call_timeout_s
        self._max_attempts = max_attempts
        self._queue: OldestFirst[Job] = OldestFirst()
        self._suspects: OldestFirst[Job] = OldestFirst()
        # By partition and offset. Looked at from the polling thread, too.
        self._jobs: dict[tuple[int, int], Job] = {}
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._done: deque[tuple[WorkItem, Answer]] = deque()
        self._pool: WorkerPool | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"inference-{task}", daemon=True)

    # -- the polling thread's side -----------------------------------------------------------

    def start(self) -> None:
        metrics.INFERENCE_WAITING.labels(self._task).set_function(
            lambda: len(self._queue) + len(self._suspects)
        )
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(timeout=10)

    def close(self) -> None:
        """Withdraw everything and end the thread."""
        if self._closed or not self._thread.is_alive():
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def submit(self, items: Sequence[WorkItem]) -> None:
        self._tell(self._enqueue, tuple(items))

    def completed(self) -> list[tuple[WorkItem, Answer]]:
        """What finished since the last call; never blocks."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def cancel(self, withdrawn: Callable[[object], bool]) -> None:
        """Withdraw the items whose token is named; a call left without items is cancelled."""
        self._tell(self._withdraw, withdrawn)

    def missing(self) -> str:
        """Names the addresses tried when no worker is there; empty otherwise."""
        return "" if self._pool is None else self._pool.missing()

    def waits_for(self, partition: int, offset: int) -> str:
        """What keeps an item from being answered; empty when it is not here, or could be sent."""
        job = self._jobs.get((partition, offset))
        if job is None or self._pool is None:
            return ""
        now = self._loop.time()
        if missing := self._pool.missing():
            return missing
        if job.worker:
            return f"the worker at {job.worker} has had it for {now - job.since:.0f} s"
        if job.again_at > now:
            return f"it is tried again in {job.again_at - now:.1f} s"
        if not self._pool.has_room():
            return "it waits for room at a worker"
        return "it failed whole calls and waits to be tried alone" if job.suspect else ""

    def _tell(self, action: Callable[[T], None], argument: T) -> None:
        # The consumer gives its partitions back after the stage has stopped: by then the client
        # holds nothing, and what is submitted is read again by whoever owns the partition.
        if not self._closed:
            self._loop.call_soon_threadsafe(action, argument)

    # -- the event loop's side ---------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _open(self) -> None:
        self._pool = WorkerPool(self._task, self._endpoints, self._dispatch, self._hung)
        self._pool.start()

    async def _shut(self) -> None:
        self._withdraw(lambda token: True)
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=2)
        if self._pool is not None:
            await self._pool.close()

    def _enqueue(self, items: tuple[WorkItem, ...]) -> None:
        for item in items:
            job = Job(item, self._batch_items)
            self._jobs[item.partition, item.offset] = job
            self._wait_for_call(job)
        self._dispatch()

    def _wait_for_call(self, job: Job) -> None:
        queue = self._suspects if job.suspect else self._queue
        queue.add(job.item.partition, job.item.offset, job)

    def _withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        for place, job in list(self._jobs.items()):
            if withdrawn(job.item.token):
                job.withdrawn = True
                del self._jobs[place]
        # While no worker is there nothing else would take them out of the queue.
        for queue in (self._queue, self._suspects):
            queue.keep(lambda job: not job.withdrawn)
        for task, call in self._calls.items():
            if call.is_withdrawn():
                task.cancel()

    def _hung(self, worker: Worker) -> None:
        """What it has goes elsewhere now, long before the deadline of its calls."""
        for task, call in self._calls.items():
            if call.worker is worker:
                call.hung = True
                task.cancel()

    def _dispatch(self) -> None:
        """Send as soon as there is a worker for a call."""
        assert self._pool is not None
        while self._queue or self._suspects:
            worker = self._pool.least_loaded()
            if worker is None:
                return
            if self._may_try_suspect(worker):
                self._send(worker, [self._suspects.take()], suspect=True)
            elif self._queue:
                self._send(worker, self._next_batch(worker.standing.room()), suspect=False)
            else:
                return

    def _may_try_suspect(self, worker: Worker) -> bool:
        if not self._suspects:
            return False
        if worker.standing.state is State.HALF_OPEN:
            return not self._queue and not worker.standing.calls
        return sum(call.suspect for call in self._calls.values()) < SUSPECTS_AT_ONCE

    def _send(self, worker: Worker, batch: list[Job], suspect: bool) -> None:
        worker.standing.started(len(batch), suspect)
        now = self._loop.time()
        for job in batch:
            job.worker, job.since = worker.address, now
        call = Call(worker, {str(index): job for index, job in enumerate(batch)}, suspect)
        task = self._loop.create_task(self._call(call))
        self._calls[task] = call
        task.add_done_callback(self._ended)

    def _next_batch(self, room: int) -> list[Job]:
        batch: list[Job] = []
        size, limit = 0, min(self._batch_items, room)
        while self._queue:
            job = self._queue.first()
            limit = min(limit, job.limit)
            if batch and (len(batch) >= limit or size + job.size > self._batch_bytes):
                break
            batch.append(self._queue.take())
            size += job.size
        return batch

    def _ended(self, task: asyncio.Task[None]) -> None:
        assert self._pool is not None
        call = self._calls.pop(task)
        self._pool.ended(call.worker, len(call.unanswered), call.suspect)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "call failed", "exception": error})
        self._dispatch()

    async def _call(self, call: Call) -> None:
        """No way out of here leaves an item of the call without an outcome."""
        started = self._loop.time()
        worker, unanswered = call.worker, call.unanswered
        batch = list(unanswered.values())
        try:
            async for response in self._responses(worker, batch):
                self._take(worker, response, unanswered)
        except grpc.aio.AioRpcError as error:
            self._call_failed(call, started, error)
        except asyncio.CancelledError:
            if call.is_withdrawn():
                raise
            reason = "the worker hung" if call.hung else "the channel was closed"
            self._broken(list(unanswered.values()), reason)
        except Exception as error:  # noqa: BLE001 - a request that cannot be sent at all
            self._bisect(list(unanswered.values()), f"{type(error).__name__}: {error}")
        else:
            worker.standing.took(len(batch), self._loop.time() - started)
            for job in unanswered.values():
                job.attempts += 1
                self._retry(job, "the worker left the item without a result")

    async def _responses(self, worker: Worker, batch: list[Job]) -> AsyncIterator[Response]:
        metadata = _trace_of(batch)
        if worker.standing.is_slow():
            request = inference_pb2.InferStreamRequest(**self._request(batch))
            async for response in worker.stub.InferStream(
                request, timeout=self._call_timeout_s, metadata=metadata
            ):
                yield response
        else:
            yield await worker.stub.Infer(
                inference_pb2.InferRequest(**self._request(batch)),
                timeout=self._call_timeout_s,
                metadata=metadata,
            )

    def _request(self, batch: list[Job]) -> dict[str, Any]:
        return {
            "task": self._task,
            "lane": inference_pb2.LANE_INTERACTIVE,
            "items": [
                inference_pb2.Item(
                    id=str(index),
                    text=job.item.text,
                    language=job.item.language,
                    traceparent=_valid_trace(job),
                )
                for index, job in enumerate(batch)
            ],
        }

    # -- outcomes ----------------------------------------------------------------------------

    def _take(
        self,
        worker: Worker,
        response: Response,
        unanswered: dict[str, Job],
    ) -> None:
        answered = len(unanswered)
        for result in response.results:
            kind = result.WhichOneof("outcome")
            if kind is not None and (job := unanswered.pop(result.id, None)) is not None:
                lineage = response.lineage if response.HasField("lineage") else None
                self._answered(job, result, kind, lineage)
        answered -= len(unanswered)
        load = response.load
        worker.standing.answered(load.running + load.waiting, answered, load.max)
        worker.standing.done(answered)
        self._dispatch()

    def _answered(
        self,
        job: Job,
        result: inference_pb2.Result,
        kind: str,
        lineage: inference_pb2.Lineage | None,
    ) -> None:
        job.attempts += 1
        if kind != "error":
            self._finish(job, getattr(result, kind), None, lineage, result.usage)
            return
        message = f"{result.error.code}: {result.error.message}"
        if result.error.retryable:
            self._retry(job, message)
        else:
            self._finish(job, None, message, lineage, result.usage)

    def _call_failed(self, call: Call, started: float, error: grpc.aio.AioRpcError) -> None:
        assert self._pool is not None
        worker, batch = call.worker, list(call.unanswered.values())
        code, details = error.code(), error.details() or ""
        reason = f"{code.name}: {details}"
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            hint = _retry_after_s(error)
            if hint is None:
                self._bisect(batch, reason)
            else:
                self._pool.hold_off(worker, hint)
                self._requeue(batch)
        elif code is grpc.StatusCode.INVALID_ARGUMENT:
            worker.standing.answered()
            self._bisect(batch, reason, final=True)
        elif code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            never_reached = any(mark in details.lower() for mark in NEVER_REACHED)
            self._pool.eject(worker, reason, over_calls=not never_reached)
            if never_reached:
                self._requeue(batch)
            else:
                self._broken(batch, reason)
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            # Who answered others meanwhile does not hang: what hangs is one of these.
            if not call.suspect and not worker.standing.answered_since(started):
                self._pool.eject(worker, reason)
            self._not_answered(batch, reason)
        else:
            self._pool.failed(worker, reason)
            self._bisect(batch, reason)

    def _not_answered(self, batch: list[Job], reason: str) -> None:
        """Halving would cost the innocent ones a deadline for each half."""
        for job in batch:
            job.suspect = True
        if len(batch) == 1:
            self._bisect(batch, reason)
        else:
            self._requeue(batch)

    def _broken(self, batch: list[Job], reason: str) -> None:
        for job in batch:
            job.broken += 1
            if job.broken >= BROKEN_IN_COMPANY:
                job.suspect = True
            if job.broken >= BROKEN_IN_COMPANY + BROKEN_ALONE:
                self._finish(job, None, f"workers keep breaking on this item ({reason})", None)
        self._requeue([job for job in batch if self._holds(job)])

    def _bisect(self, batch: list[Job], reason: str, final: bool = False) -> None:
        """A call failed as a whole: halve it until the item that fails is alone."""
        if len(batch) == 1:
            batch[0].attempts += 1
            if final:
                self._finish(batch[0], None, reason, None)
            else:
                self._retry(batch[0], reason)
            return
        for job in batch:
            job.limit = max(1, len(batch) // 2)
        self._requeue(batch)

    def _retry(self, job: Job, reason: str) -> None:
        if job.attempts >= self._max_attempts:
            self._finish(job, None, f"{reason} ({job.attempts} attempts)", None)
            return
        pause = backoff_s(job.attempts, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, random.random())
        job.worker, job.again_at = "", self._loop.time() + pause
        self._loop.call_later(pause, self._requeue, [job])

    def _requeue(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.worker = ""
            if not job.withdrawn:
                self._wait_for_call(job)
        self._loop.call_soon(self._dispatch)

    def _holds(self, job: Job) -> bool:
        return self._jobs.get((job.item.partition, job.item.offset)) is job

    def _finish(
        self,
        job: Job,
        output: Output | None,
        error: str | None,
        lineage: inference_pb2.Lineage | None,
        usage: inference_pb2.Usage | None = None,
    ) -> None:
        if not self._holds(job):
            return
        del self._jobs[job.item.partition, job.item.offset]
        attempts = max(1, job.attempts + job.broken)
        self._done.append((job.item, Answer(output, error, attempts, lineage, usage)))


def _valid_trace(job: Job) -> str:
    """Producers may write anything into a header; gRPC fails a call over what it cannot carry."""
    trace = job.item.traceparent or ""
    return trace if TRACEPARENT.fullmatch(trace) else ""


def _trace_of(batch: list[Job]) -> tuple[tuple[str, str], ...]:
    """A call has room for one trace, its first item's; each item carries its own besides."""
    first = next(filter(None, map(_valid_trace, batch)), "")
    return (("traceparent", first),) if first else ()


def _retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == RETRY_AFTER:
            try:
                return max(0.01, int(value) / 1000)
            except ValueError:
                return None
    return None
