"""Calls to workers: which items are sent to which worker, and how the end of a call is handled.

An item of a call that timed out or broke repeatedly is a suspect. Suspects are sent alone, at most
SUSPECTS_AT_ONCE at a time, and not as the trial call of a half-open worker while other items wait.
So an item that no worker can answer does not delay the others.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc

from reviewmesh.enrich.breaker import State
from reviewmesh.enrich.failures import CallFailure, FailureKind, failure_of
from reviewmesh.enrich.items import ITEM_REFUSED, CallMade, Job, WorkItem
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.pool import PoolConfig, Worker, WorkerPool
from reviewmesh.enrich.requests import metadata_of, request_fields
from reviewmesh.enrich.retries import Retries
from reviewmesh.leaving.amounts import NOTHING, Amount
from reviewmesh_protos.inference.v1 import inference_pb2

Response = inference_pb2.InferResponse | inference_pb2.InferStreamResponse

SUSPECTS_AT_ONCE = 4
# After these failures no item of the call can have reached a provider.
NOTHING_SENT = frozenset({FailureKind.FULL, FailureKind.INVALID, FailureKind.NOT_STARTED})


@dataclass(slots=True)
class Call:
    worker: Worker
    unanswered: dict[str, Job]
    """Items without a result, by their id within the call."""
    suspect: bool
    hung: bool = False
    may_be_sent: bool = False
    """Whether the request may have been sent."""

    def is_withdrawn(self) -> bool:
        return all(job.withdrawn for job in self.unanswered.values())


class Calls:
    """Belongs to one event loop: created, used and closed there."""

    def __init__(
        self,
        config: PoolConfig,
        jobs: Jobs,
        call_timeout_s: float,
        max_attempts: int,
        lane: inference_pb2.Lane.ValueType = inference_pb2.LANE_INTERACTIVE,
        bound: Amount = NOTHING,
    ) -> None:
        """`bound`: the most that an item may cost. With it each item reaches a worker at most
        once."""
        self._bound = bound
        self._task = config.task
        self._sent = config.calls
        self._lane = lane
        self._jobs = jobs
        self._call_timeout_s = call_timeout_s
        self._loop = asyncio.get_running_loop()
        self._retries = Retries(jobs, self._loop, max_attempts, self._dispatch)
        self._running: dict[asyncio.Task[None], Call] = {}
        self.pool = WorkerPool(config, self._dispatch, self._hung)
        self.pool.start()

    async def close(self) -> None:
        self.withdraw(lambda token: True)
        if self._running:
            await asyncio.wait(list(self._running), timeout=2)
        await self.pool.close()

    def submit(self, items: Sequence[WorkItem]) -> None:
        self._jobs.add(items)
        self._dispatch()

    def put_back(self, job: Job) -> None:
        """Queue a job again that was removed while it waited."""
        self._jobs.put_back(job)
        self._loop.call_soon(self._dispatch)

    def withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """Drop the items whose token `withdrawn` accepts; cancel calls without remaining items."""
        self._jobs.withdraw(withdrawn)
        for running, call in self._running.items():
            if call.is_withdrawn():
                running.cancel()

    def _hung(self, worker: Worker) -> None:
        """Cancel the calls of a worker that hangs, so that its items are sent to other workers
        now."""
        for running, call in self._running.items():
            if call.worker is worker:
                call.hung = True
                running.cancel()

    # -- sending -----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Send waiting items while workers have room."""
        while self._jobs.waiting:
            worker = self.pool.least_loaded()
            if worker is None:
                return
            if self._may_try_suspect(worker):
                self._send(worker, [self._jobs.next_suspect()], suspect=True)
            elif self._jobs.has_others:
                self._send(worker, self._jobs.next_batch(worker.breaker.room()), suspect=False)
            else:
                return

    def _may_try_suspect(self, worker: Worker) -> bool:
        if not self._jobs.has_suspects:
            return False
        if worker.breaker.state is State.HALF_OPEN:
            return not self._jobs.has_others and not worker.breaker.calls
        return sum(call.suspect for call in self._running.values()) < SUSPECTS_AT_ONCE

    def _send(self, worker: Worker, batch: list[Job], suspect: bool) -> None:
        worker.breaker.started(len(batch), suspect)
        self._sent.inc()
        now = self._loop.time()
        made = CallMade(secrets.token_hex(4), int(time.time() * 1000))
        for job in batch:
            job.worker, job.sent_at, job.call = worker.address, now, made
        call = Call(worker, {str(index): job for index, job in enumerate(batch)}, suspect)
        running = self._loop.create_task(self._run(call))
        self._running[running] = call
        running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        call = self._running.pop(running)
        self.pool.ended(call.worker, len(call.unanswered), call.suspect)
        if not running.cancelled() and (error := running.exception()) is not None:
            self._loop.call_exception_handler({"message": "call failed", "exception": error})
        self._dispatch()

    async def _run(self, call: Call) -> None:
        """Make one call. However it ends, each of its items gets an outcome."""
        started = self._loop.time()
        worker, unanswered = call.worker, call.unanswered
        batch = list(unanswered.values())
        try:
            async for response in self._responses(call, batch):
                self._handle_response(worker, response, unanswered)
        except grpc.aio.AioRpcError as error:
            self._failed(call, started, failure_of(error))
        except asyncio.CancelledError:
            if call.is_withdrawn():
                raise
            reason = "the worker hung" if call.hung else "the channel was closed"
            if self._bound.requests:
                self._give_up(list(unanswered.values()), reason)
            else:
                self._retries.call_broke(list(unanswered.values()), reason)
        except Exception as error:  # noqa: BLE001 - the request or response is invalid
            reason = f"{type(error).__name__}: {error}"
            if self._bound.requests and call.may_be_sent:
                self._give_up(list(unanswered.values()), reason)
            elif unanswered:
                self._retries.bisect(list(unanswered.values()), reason)
        else:
            worker.breaker.call_succeeded(len(batch), self._loop.time() - started)
            for job in unanswered.values():
                job.attempts += 1
                self._retries.try_again(job, "the worker left the item without a result")

    async def _responses(self, call: Call, batch: list[Job]) -> AsyncIterator[Response]:
        worker = call.worker
        fields, metadata = (
            request_fields(self._task, batch, self._lane, self._bound),
            metadata_of(batch),
        )
        if worker.breaker.is_slow():
            request = inference_pb2.InferStreamRequest(**fields)
            call.may_be_sent = True
            async for response in worker.connection.stub.InferStream(
                request, timeout=self._call_timeout_s, metadata=metadata
            ):
                yield response
        else:
            whole = inference_pb2.InferRequest(**fields)
            call.may_be_sent = True
            yield await worker.connection.stub.Infer(
                whole, timeout=self._call_timeout_s, metadata=metadata
            )

    # -- outcomes ----------------------------------------------------------------------------

    def _handle_response(
        self, worker: Worker, response: Response, unanswered: dict[str, Job]
    ) -> None:
        answered = len(unanswered)
        for result in response.results:
            kind = result.WhichOneof("outcome")
            if kind is not None and (job := unanswered.pop(result.id, None)) is not None:
                lineage = response.lineage if response.HasField("lineage") else None
                self._answered(job, result, kind, lineage)
        answered -= len(unanswered)
        load = response.load
        if reason := _reason_if_all_failed(response):
            self.pool.failed(worker, reason)
        else:
            worker.breaker.answered(load.running + load.waiting, answered, load.max)
        worker.breaker.items_answered(answered)
        self._dispatch()

    def _answered(
        self,
        job: Job,
        result: inference_pb2.Result,
        kind: str,
        lineage: inference_pb2.Lineage | None,
    ) -> None:
        job.attempts += 1
        job.add_usage(lineage, result.usage)
        if kind != "error":
            self._jobs.answer(job, getattr(result, kind))
            return
        message = f"{result.error.code}: {result.error.message}"
        if result.error.retryable and self._bound.requests:
            self._jobs.give_up(job, message, retryable=True)
        elif result.error.retryable:
            self._retries.try_again(job, message)
        else:
            self._jobs.give_up(job, message, code=result.error.code)

    def _failed(self, call: Call, started: float, failure: CallFailure) -> None:
        worker, batch, reason = call.worker, list(call.unanswered.values()), failure.reason
        match failure.kind:
            case kind if self._bound.requests and kind not in NOTHING_SENT:
                if kind is not FailureKind.TOO_LARGE:
                    self.pool.eject(worker, reason)
                self._give_up(batch, reason)
            case FailureKind.FULL:
                self.pool.hold_off(worker, failure.retry_after_s)
                self._retries.send_elsewhere(batch)
            case FailureKind.TOO_LARGE:
                self._retries.bisect(batch, reason)
            case FailureKind.INVALID if self._bound.requests and len(batch) == 1:
                worker.breaker.answered()
                self._jobs.give_up(batch[0], reason, code=ITEM_REFUSED)
            case FailureKind.INVALID:
                worker.breaker.answered()
                self._retries.bisect(batch, reason, final=True)
            case FailureKind.NOT_STARTED:
                self.pool.eject(worker, reason, because_of_calls=False)
                self._retries.send_elsewhere(batch)
            case FailureKind.BROKEN:
                self.pool.eject(worker, reason)
                self._retries.call_broke(batch, reason)
            case FailureKind.TIMED_OUT:
                # A worker that answered other calls meanwhile does not hang, so one of these
                # items is the cause.
                if not call.suspect and not worker.breaker.answered_since(started):
                    self.pool.eject(worker, reason)
                self._retries.timed_out(batch, reason)
            case FailureKind.FAILED:
                self.pool.failed(worker, reason)
                self._retries.bisect(batch, reason)

    def _give_up(self, batch: Sequence[Job], reason: str) -> None:
        """Finish items that a provider may have received: a retry would be a second request."""
        for job in batch:
            job.attempts += 1
            self._jobs.give_up(job, reason, retryable=True)


def _reason_if_all_failed(response: Response) -> str:
    """The last error if all results are retryable errors; empty otherwise.

    Then the worker itself works, and something that it depends on does not.
    """
    reason = ""
    for result in response.results:
        if result.WhichOneof("outcome") != "error" or not result.error.retryable:
            return ""
        reason = result.error.message
    return reason
