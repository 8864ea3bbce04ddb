"""The calls of the contract: checks and admits a call, and answers it with its task's engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

import grpc
import structlog

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_protos.metadata import NOT_STARTED, RETRY_AFTER_MS
from reviewmesh_worker.engines.interface import (
    Bounds,
    EngineDead,
    EngineUnavailable,
    ItemFailure,
    ItemResult,
    TaskDescription,
    Usage,
)
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.serving import metrics
from reviewmesh_worker.serving.admission import Admission, Full
from reviewmesh_worker.serving.as_completed import groups_as_completed
from reviewmesh_worker.serving.deployment import Deployment, LoadedEngine, NotServing
from reviewmesh_worker.serving.languages import language_of, measured_in
from reviewmesh_worker.serving.results import lineage_of, to_result

Request = inference_pb2.InferRequest | inference_pb2.InferStreamRequest
_Refusal = NotServing | Full | EngineDead | EngineUnavailable
MAX_ITEMS_PER_CALL = 256
MAX_TEXT_CODE_POINTS = 100_000
# The largest text is 400 KB in UTF-8; the mesh's client sends 1 MiB at most, or one such text.
MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
MAX_ID = 1_024
MAX_LANGUAGE = 100
MAX_TRACEPARENT = 100


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Answers calls while `state` is serving; refuses them while it is loading or draining."""

    def __init__(
        self, deployment: Deployment, max_in_flight: int, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._deployment = deployment
        self._log = log
        self.admission = Admission(max_in_flight)
        self.state = "loading"
        self.alarm = asyncio.Event()
        """Set when an engine died or was refused in a call; the server then looks at those in
        service."""

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> inference_pb2.InferResponse:
        await self._check(request, context)
        try:
            with (
                self._deployment.lease(request.task) as loaded,
                self.admission.admit(len(request.items), lane_of(request)),
            ):
                return await self._infer(request, loaded)
        except (NotServing, Full, EngineDead, EngineUnavailable) as error:
            await self._refuse(context, error)

    async def InferStream(
        self, request: inference_pb2.InferStreamRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferStreamResponse]:
        await self._check(request, context)
        try:
            with (
                self._deployment.lease(request.task) as loaded,
                self.admission.admit(len(request.items), lane_of(request)) as free,
            ):
                async for response in self._infer_stream(request, loaded):
                    free(len(response.results))
                    yield response
        except (NotServing, Full, EngineDead, EngineUnavailable) as error:
            await self._refuse(context, error)

    async def _refuse(self, context: Any, error: _Refusal) -> NoReturn:
        if isinstance(error, Full):
            await refuse_for_now(context, error)
        if isinstance(error, EngineDead):
            self.alarm.set()
            await refuse(context, grpc.StatusCode.UNAVAILABLE, f"the engine died: {error}")
        if isinstance(error, EngineUnavailable):
            self.alarm.set()
            await refuse_unstarted(context, "unavailable", f"{error}; try another worker")
        await refuse_unstarted(context, "draining", str(error))

    async def _check(self, request: Request, context: Any) -> None:
        if self.state != "serving":
            await refuse_unstarted(context, self.state, f"{self.state}; try another worker")
        problem = ""
        if request.task not in self._deployment.tasks:
            problem = f"expected a task of {sorted(self._deployment.tasks)}, got {request.task!r}"
        elif not 1 <= len(request.items) <= MAX_ITEMS_PER_CALL:
            problem = f"expected 1 to {MAX_ITEMS_PER_CALL} items, got {len(request.items)}"
        else:
            problem = too_long(request.items)
        problem = problem or negative_bound(request)
        if problem:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, problem)

    async def _infer(
        self, request: inference_pb2.InferRequest, loaded: LoadedEngine
    ) -> inference_pb2.InferResponse:
        started = time.monotonic()
        texts = [item.text for item in request.items]
        answers = await loaded.engine.infer(
            request.task, texts, lane_of(request), bounds_of(request)
        )
        self._measure(request, loaded.engine.tasks[request.task], started)
        answered = list(zip(request.items, answers, strict=True))
        return inference_pb2.InferResponse(
            **self._response(request.task, loaded, started, answered)
        )

    async def _infer_stream(
        self, request: inference_pb2.InferStreamRequest, loaded: LoadedEngine
    ) -> AsyncIterator[inference_pb2.InferStreamResponse]:
        started = time.monotonic()
        if reason := loaded.engine.unavailable():
            raise EngineUnavailable(reason)
        one_by_one = [self._infer_one(request, item, loaded) for item in request.items]
        async for group in groups_as_completed(one_by_one):
            answered = [(request.items[position], answer) for position, (answer,) in group]
            yield inference_pb2.InferStreamResponse(
                **self._response(request.task, loaded, started, answered)
            )
        self._measure(request, loaded.engine.tasks[request.task], started)

    async def _infer_one(
        self,
        request: inference_pb2.InferStreamRequest,
        item: inference_pb2.Item,
        loaded: LoadedEngine,
    ) -> Sequence[ItemResult]:
        bounds = bounds_of(request)
        try:
            return await loaded.engine.infer(request.task, [item.text], lane_of(request), bounds)
        except EngineUnavailable as error:
            if not bounds.provider_requests:
                raise
            # Other items of the call may have been sent: it can no longer be refused as not begun.
            usage = Usage(provider_requests=0)
            return [ItemResult(ItemFailure("UNAVAILABLE", str(error), True), usage)]

    def _measure(self, request: Request, description: TaskDescription, started: float) -> None:
        seconds = time.monotonic() - started
        metrics.CALL_ITEMS.labels(request.task).observe(len(request.items))
        metrics.ENGINE_SECONDS.labels(request.task, description.model_version).observe(seconds)

    def _response(
        self,
        task: str,
        loaded: LoadedEngine,
        started: float,
        answered: Sequence[tuple[inference_pb2.Item, ItemResult]],
    ) -> dict[str, Any]:
        so_far_ms = int((time.monotonic() - started) * 1000)
        failed = 0
        loaded.values[task].count(
            (answer.outcome, item.text, item.language) for item, answer in answered
        )
        for item, answer in answered:
            outcome = answer.outcome
            if isinstance(outcome, ItemFailure):
                failed += 1
                self._log.warning(
                    "item failed",
                    task=task,
                    code=outcome.code,
                    reason=outcome.message,
                    traceparent=item.traceparent,
                )
        if failed and loaded.engine.unavailable():
            self.alarm.set()
        description = loaded.engine.tasks[task]
        version = description.model_version
        metrics.ITEMS.labels(task, version, "failed").inc(failed)
        metrics.ITEMS.labels(task, version, "ok").inc(len(answered) - failed)
        return {
            "results": [
                self._result(item, answer, description, so_far_ms) for item, answer in answered
            ],
            "lineage": lineage_of(description),
            "load": self._load(loaded),
        }

    def _result(
        self,
        item: inference_pb2.Item,
        answer: ItemResult,
        description: TaskDescription,
        so_far_ms: int,
    ) -> inference_pb2.Result:
        if not description.languages:
            return to_result(item.id, answer, so_far_ms)
        language = language_of(item.text, item.language)
        measured = measured_in(language, description.languages)
        if measured is False:
            metrics.UNMEASURED_LANGUAGE.labels(description.task, description.model_version).inc()
        return to_result(item.id, answer, so_far_ms, language=language, measured=measured)

    def _load(self, loaded: LoadedEngine) -> inference_pb2.Load:
        load = loaded.engine.load()
        return inference_pb2.Load(
            running=load.running,
            waiting=load.waiting,
            kv_usage=load.kv_usage,
            max=self.admission.max_items,
        )

    async def Describe(
        self, request: inference_pb2.DescribeRequest, context: Any
    ) -> inference_pb2.DescribeResponse:
        """Part of the contract for other clients: the mesh does not call it."""
        return inference_pb2.DescribeResponse(
            tasks=[
                inference_pb2.TaskDescription(
                    task=task.task,
                    labels=task.labels,
                    engine=task.engine,
                    model=task.model,
                    model_version=task.model_version,
                    model_digest=task.model_digest,
                    provider=task.provider,
                )
                for task in self._deployment.descriptions()
            ],
            limits=inference_pb2.Limits(
                max_items_per_call=MAX_ITEMS_PER_CALL,
                max_in_flight_items=self.admission.max_items,
                max_text_code_points=MAX_TEXT_CODE_POINTS,
                max_message_bytes=MAX_REQUEST_BYTES,
            ),
        )


def bounds_of(request: Request) -> Bounds:
    return Bounds(request.max_provider_requests, request.max_tokens, request.max_cost_micros)


def negative_bound(request: Request) -> str:
    """A message for the first bound below 0; empty when there is none."""
    for name in ("max_provider_requests", "max_tokens", "max_cost_micros"):
        if (value := getattr(request, name)) < 0:
            return f"expected {name} of 0 or more, got {value}"
    return ""


def too_long(items: Sequence[inference_pb2.Item]) -> str:
    """A message for the first field of the items that exceeds its limit; empty when none does."""
    fields = (
        ("texts", MAX_TEXT_CODE_POINTS, [item.text for item in items]),
        ("ids", MAX_ID, [item.id for item in items]),
        ("languages", MAX_LANGUAGE, [item.language for item in items]),
        ("traceparents", MAX_TRACEPARENT, [item.traceparent for item in items]),
    )
    for name, limit, values in fields:
        longest = max(map(len, values))
        if longest > limit:
            return f"expected {name} of at most {limit} code points, got {longest}"
    return ""


async def refuse_for_now(context: Any, full: Full) -> NoReturn:
    context.set_trailing_metadata(((RETRY_AFTER_MS, str(full.retry_after_ms)),))
    await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(full))


async def refuse_unstarted(context: Any, state: str, message: str) -> NoReturn:
    """Refuse a call that was not started: the client may send its items to another worker."""
    context.set_trailing_metadata(((NOT_STARTED, state),))
    await refuse(context, grpc.StatusCode.UNAVAILABLE, message)


async def refuse(context: Any, code: grpc.StatusCode, message: str) -> NoReturn:
    metrics.REFUSED.labels(code.name).inc()
    await context.abort(code, message)
    raise AssertionError("abort always raises")


def lane_of(request: Request) -> Lane:
    """Interactive unless marked as a backfill."""
    backfill = request.lane == inference_pb2.LANE_BACKFILL
    return Lane.BACKFILL if backfill else Lane.INTERACTIVE
