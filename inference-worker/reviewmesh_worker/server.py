"""The gRPC server of a worker: admission, health per task, drain. It knows nothing of Kafka."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_worker import metrics
from reviewmesh_worker.admission import Admission, Full
from reviewmesh_worker.endpoints import Endpoints
from reviewmesh_worker.engines.interface import (
    Answer,
    Engine,
    EngineDead,
    ItemFailure,
    NerOutput,
    TaskDescription,
    TopicOutput,
    Usage,
)
from reviewmesh_worker.ready import as_ready
from reviewmesh_worker.settings import Settings

Request = inference_pb2.InferRequest | inference_pb2.InferStreamRequest
MAX_ITEMS_PER_CALL = 256
MAX_TEXT_CODE_POINTS = 100_000
LAST_ANSWERS_S = 1.0
CHECK_EVERY_S = 1.0
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_NAMES = (
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Answers calls while `state` is serving; loading and draining say so."""

    def __init__(
        self, engine: Engine, max_in_flight: int, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._engine = engine
        self._log = log
        self.admission = Admission(max_in_flight)
        self.state = "loading"
        self.died = asyncio.Event()

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> inference_pb2.InferResponse:
        description = await self._check(request, context)
        try:
            with self.admission.admit(len(request.items)):
                return await self._infer(request, description)
        except Full as full:
            await refuse_for_now(context, full)
        except EngineDead as dead:
            await self._refuse_dead(context, dead)

    async def InferStream(
        self, request: inference_pb2.InferStreamRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferStreamResponse]:
        description = await self._check(request, context)
        try:
            with self.admission.admit(len(request.items)) as free:
                async for response in self._infer_stream(request, description):
                    free(len(response.results))
                    yield response
        except Full as full:
            await refuse_for_now(context, full)
        except EngineDead as dead:
            await self._refuse_dead(context, dead)

    async def _refuse_dead(self, context: Any, dead: EngineDead) -> NoReturn:
        self.died.set()
        await refuse(context, grpc.StatusCode.UNAVAILABLE, f"the engine died: {dead}")

    async def _check(self, request: Request, context: Any) -> TaskDescription:
        if self.state != "serving":
            await refuse(context, grpc.StatusCode.UNAVAILABLE, f"{self.state}; try another worker")
        description = self._engine.tasks.get(request.task)
        problem = ""
        if description is None:
            problem = f"expected a task of {sorted(self._engine.tasks)}, got {request.task!r}"
        elif not 1 <= len(request.items) <= MAX_ITEMS_PER_CALL:
            problem = f"expected 1 to {MAX_ITEMS_PER_CALL} items, got {len(request.items)}"
        else:
            longest = max(len(item.text) for item in request.items)
            if longest > MAX_TEXT_CODE_POINTS:
                problem = (
                    f"expected texts of at most {MAX_TEXT_CODE_POINTS} code points, got {longest}"
                )
        if problem or description is None:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, problem)
        return description

    async def _infer(
        self, request: inference_pb2.InferRequest, description: TaskDescription
    ) -> inference_pb2.InferResponse:
        started = time.monotonic()
        answers = await self._engine.infer(request.task, [item.text for item in request.items])
        self._measure(request, description, started)
        answered = list(zip(request.items, answers, strict=True))
        return inference_pb2.InferResponse(
            **self._response(request.task, description, started, answered)
        )

    async def _infer_stream(
        self, request: inference_pb2.InferStreamRequest, description: TaskDescription
    ) -> AsyncIterator[inference_pb2.InferStreamResponse]:
        started = time.monotonic()
        one_by_one = [self._engine.infer(request.task, [item.text]) for item in request.items]
        async for group in as_ready(one_by_one):
            answered = [(request.items[position], answer) for position, (answer,) in group]
            yield inference_pb2.InferStreamResponse(
                **self._response(request.task, description, started, answered)
            )
        self._measure(request, description, started)

    def _measure(self, request: Request, description: TaskDescription, started: float) -> None:
        seconds = time.monotonic() - started
        self.admission.measured(len(request.items), seconds)
        metrics.CALL_ITEMS.labels(request.task).observe(len(request.items))
        metrics.ENGINE_SECONDS.labels(request.task, description.model_version).observe(seconds)

    def _response(
        self,
        task: str,
        description: TaskDescription,
        started: float,
        answered: Sequence[tuple[inference_pb2.Item, Answer]],
    ) -> dict[str, Any]:
        so_far_ms = int((time.monotonic() - started) * 1000)
        failed = 0
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
        version = description.model_version
        metrics.ITEMS.labels(task, version, "failed").inc(failed)
        metrics.ITEMS.labels(task, version, "ok").inc(len(answered) - failed)
        return {
            "results": [to_result(item.id, answer, so_far_ms) for item, answer in answered],
            "lineage": lineage_of(description),
            "load": self._load(),
        }

    def _load(self) -> inference_pb2.Load:
        load = self._engine.load()
        return inference_pb2.Load(
            running=load.running,
            waiting=load.waiting,
            kv_usage=load.kv_usage,
            max=self.admission.max_items,
        )

    async def Describe(
        self, request: inference_pb2.DescribeRequest, context: Any
    ) -> inference_pb2.DescribeResponse:
        return inference_pb2.DescribeResponse(
            tasks=[
                inference_pb2.TaskDescription(
                    task=task.task,
                    labels=task.labels,
                    engine=task.engine,
                    model=task.model,
                    model_version=task.model_version,
                    model_digest=task.model_digest,
                )
                for task in self._engine.tasks.values()
            ],
            limits=inference_pb2.Limits(
                max_items_per_call=MAX_ITEMS_PER_CALL,
                max_in_flight_items=self.admission.max_items,
                max_text_code_points=MAX_TEXT_CODE_POINTS,
                max_message_bytes=MAX_MESSAGE_BYTES,
            ),
        )


async def refuse_for_now(context: Any, full: Full) -> NoReturn:
    context.set_trailing_metadata((("retry-after-ms", str(full.retry_after_ms)),))
    await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(full))


async def refuse(context: Any, code: grpc.StatusCode, message: str) -> NoReturn:
    metrics.REFUSED.labels(code.name).inc()
    await context.abort(code, message)
    raise AssertionError("abort always raises")


def lineage_of(task: TaskDescription) -> inference_pb2.Lineage:
    return inference_pb2.Lineage(
        task=task.task,
        engine=task.engine,
        model=task.model,
        model_version=task.model_version,
        model_digest=task.model_digest,
        prompt_version=task.prompt_version,
    )


def to_usage(usage: Usage, so_far_ms: int) -> inference_pb2.Usage:
    """An engine that measures no time of its own took as long as the call."""
    return inference_pb2.Usage(
        queue_ms=usage.queue_ms,
        inference_ms=so_far_ms if usage.inference_ms is None else usage.inference_ms,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def to_result(item_id: str, answer: Answer, so_far_ms: int) -> inference_pb2.Result:
    outcome = answer.outcome
    result = inference_pb2.Result(id=item_id, usage=to_usage(answer.usage, so_far_ms))
    if isinstance(outcome, ItemFailure):
        result.error.code = outcome.code
        result.error.message = outcome.message
        result.error.retryable = outcome.retryable
    elif isinstance(outcome, NerOutput):
        result.ner.SetInParent()
        for entity in outcome.entities:
            result.ner.entities.add(
                start=entity.start,
                end=entity.end,
                text=entity.text,
                label=entity.label,
                score=entity.score,
            )
    elif isinstance(outcome, TopicOutput):
        result.topic.SetInParent()
        for topic in outcome.topics:
            result.topic.topics.add(id=topic.id, score=topic.score, polarity=topic.polarity)
    else:
        result.sentiment.label = outcome.label
        for label, score in outcome.scores.items():
            result.sentiment.scores[label] = score
    return result


async def serve(engine: Engine, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises EngineLoadError, OSError for a port, and EngineDead when the engine died while serving.
    """
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        )
    )
    servicer = InferenceServicer(engine, settings.worker.max_in_flight, log)
    health_servicer = health.aio.HealthServicer()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection(SERVICE_NAMES, server)
    address = f"{settings.worker.host}:{settings.worker.port}"
    port = server.add_insecure_port(address)
    metrics.IN_FLIGHT.set_function(lambda: servicer.admission.items)
    metrics.WAITING.set_function(lambda: engine.load().waiting)
    endpoints = Endpoints(settings.http, lambda: servicer.state)
    endpoints.start()
    services = ("", SERVICE_NAMES[0], *engine.tasks)
    await set_health(health_servicer, services, NOT_SERVING)
    await server.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    log.info("loading", port=port, tasks=sorted(engine.tasks))
    try:
        if await started(engine, stopping):
            servicer.state = "serving"
            await set_health(health_servicer, services, SERVING)
            log.info("serving", port=port)
            await stopped_or_dead(servicer, engine, stopping)
        servicer.state = "draining"
        log.info("draining", in_flight=servicer.admission.items)
        await set_health(health_servicer, services, NOT_SERVING)
        # The port stays open meanwhile: who asks is told that the worker drains.
        await servicer.admission.emptied(settings.worker.grace_s)
    finally:
        await server.stop(LAST_ANSWERS_S)
        endpoints.stop()
    await engine.close()
    if servicer.died.is_set():
        raise EngineDead("the engine died; start this worker anew")
    log.info("stopped")


async def stopped_or_dead(
    servicer: InferenceServicer, engine: Engine, stopping: asyncio.Event
) -> None:
    """Wait for a signal, or for the engine's death, which a call or a check may find."""
    while not stopping.is_set() and not servicer.died.is_set():
        try:
            engine.check()
        except EngineDead:
            servicer.died.set()
        waits = [asyncio.ensure_future(event.wait()) for event in (stopping, servicer.died)]
        await asyncio.wait(waits, timeout=CHECK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def started(engine: Engine, stopping: asyncio.Event) -> bool:
    """Loading may take minutes; False when a signal ended it. Raises EngineLoadError."""
    loading = asyncio.create_task(engine.start())
    signalled = asyncio.create_task(stopping.wait())
    await asyncio.wait((loading, signalled), return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if loading.done():
        loading.result()
        return True
    loading.cancel()
    await asyncio.wait((loading,), timeout=LAST_ANSWERS_S)
    return False


async def set_health(servicer: Any, services: tuple[str, ...], status: Any) -> None:
    for service in services:
        await servicer.set(service, status)
