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
from reviewmesh_worker.deployment import Copy, Deployment, NotServing
from reviewmesh_worker.endpoints import Endpoints
from reviewmesh_worker.engines.interface import (
    Answer,
    EngineDead,
    ItemFailure,
    NerOutput,
    TaskDescription,
    TopicOutput,
    Usage,
)
from reviewmesh_worker.lanes import Lane
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
        self, deployment: Deployment, max_in_flight: int, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._deployment = deployment
        self._log = log
        self.admission = Admission(max_in_flight)
        self.state = "loading"
        self.alarm = asyncio.Event()
        """An engine died in a call: see whether it is one in service."""

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> inference_pb2.InferResponse:
        await self._check(request, context)
        try:
            with (
                self._deployment.lease(request.task) as copy,
                self.admission.admit(len(request.items), lane_of(request)),
            ):
                return await self._infer(request, copy)
        except (NotServing, Full, EngineDead) as error:
            await self._refuse(context, error)

    async def InferStream(
        self, request: inference_pb2.InferStreamRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferStreamResponse]:
        await self._check(request, context)
        try:
            with (
                self._deployment.lease(request.task) as copy,
                self.admission.admit(len(request.items), lane_of(request)) as free,
            ):
                async for response in self._infer_stream(request, copy):
                    free(len(response.results))
                    yield response
        except (NotServing, Full, EngineDead) as error:
            await self._refuse(context, error)

    async def _refuse(self, context: Any, error: NotServing | Full | EngineDead) -> NoReturn:
        if isinstance(error, Full):
            await refuse_for_now(context, error)
        if isinstance(error, EngineDead):
            self.alarm.set()
            await refuse(context, grpc.StatusCode.UNAVAILABLE, f"the engine died: {error}")
        await refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))

    async def _check(self, request: Request, context: Any) -> None:
        if self.state != "serving":
            await refuse(context, grpc.StatusCode.UNAVAILABLE, f"{self.state}; try another worker")
        problem = ""
        if request.task not in self._deployment.tasks:
            problem = f"expected a task of {sorted(self._deployment.tasks)}, got {request.task!r}"
        elif not 1 <= len(request.items) <= MAX_ITEMS_PER_CALL:
            problem = f"expected 1 to {MAX_ITEMS_PER_CALL} items, got {len(request.items)}"
        else:
            longest = max(len(item.text) for item in request.items)
            if longest > MAX_TEXT_CODE_POINTS:
                problem = (
                    f"expected texts of at most {MAX_TEXT_CODE_POINTS} code points, got {longest}"
                )
        if problem:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, problem)

    async def _infer(
        self, request: inference_pb2.InferRequest, copy: Copy
    ) -> inference_pb2.InferResponse:
        started = time.monotonic()
        texts = [item.text for item in request.items]
        answers = await copy.engine.infer(request.task, texts, lane_of(request))
        self._measure(request, copy.engine.tasks[request.task], started)
        answered = list(zip(request.items, answers, strict=True))
        return inference_pb2.InferResponse(**self._response(request.task, copy, started, answered))

    async def _infer_stream(
        self, request: inference_pb2.InferStreamRequest, copy: Copy
    ) -> AsyncIterator[inference_pb2.InferStreamResponse]:
        started = time.monotonic()
        infer, lane = copy.engine.infer, lane_of(request)
        one_by_one = [infer(request.task, [item.text], lane) for item in request.items]
        async for group in as_ready(one_by_one):
            answered = [(request.items[position], answer) for position, (answer,) in group]
            yield inference_pb2.InferStreamResponse(
                **self._response(request.task, copy, started, answered)
            )
        self._measure(request, copy.engine.tasks[request.task], started)

    def _measure(self, request: Request, description: TaskDescription, started: float) -> None:
        seconds = time.monotonic() - started
        self.admission.measured(len(request.items), seconds)
        metrics.CALL_ITEMS.labels(request.task).observe(len(request.items))
        metrics.ENGINE_SECONDS.labels(request.task, description.model_version).observe(seconds)

    def _response(
        self,
        task: str,
        copy: Copy,
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
        description = copy.engine.tasks[task]
        version = description.model_version
        metrics.ITEMS.labels(task, version, "failed").inc(failed)
        metrics.ITEMS.labels(task, version, "ok").inc(len(answered) - failed)
        return {
            "results": [to_result(item.id, answer, so_far_ms) for item, answer in answered],
            "lineage": lineage_of(description),
            "load": self._load(copy),
        }

    def _load(self, copy: Copy) -> inference_pb2.Load:
        load = copy.engine.load()
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
                for task in self._deployment.descriptions()
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


def lane_of(request: Request) -> Lane:
    """What is not marked as a backfill may have somebody who waits for it."""
    backfill = request.lane == inference_pb2.LANE_BACKFILL
    return Lane.BACKFILL if backfill else Lane.INTERACTIVE


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


async def serve(
    deployment: Deployment, settings: Settings, log: structlog.stdlib.BoundLogger
) -> None:
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
    servicer = InferenceServicer(deployment, settings.worker.max_in_flight, log)
    checks = Health(servicer, deployment)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks.servicer, server)
    reflection.enable_server_reflection(SERVICE_NAMES, server)
    address = f"{settings.worker.host}:{settings.worker.port}"
    port = server.add_insecure_port(address)
    metrics.IN_FLIGHT.set_function(lambda: servicer.admission.items)
    metrics.WAITING.set_function(deployment.waiting)
    endpoints = Endpoints(settings.http, checks.state)
    endpoints.start()
    await checks.tell()
    await server.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    log.info("starting", port=port, tasks=sorted(deployment.tasks))
    dead: EngineDead | None = None
    try:
        if await started(deployment, stopping):
            servicer.state = "serving"
            await checks.tell()
            log.info("serving", port=port)
            dead = await stopped_or_dead(servicer, deployment, checks, stopping)
        servicer.state = "draining"
        log.info("draining", in_flight=servicer.admission.items)
        await checks.tell()
        # The port stays open meanwhile: who asks is told that the worker drains.
        await servicer.admission.emptied(settings.worker.grace_s)
    finally:
        await server.stop(LAST_ANSWERS_S)
        endpoints.stop()
        await deployment.close()
    if dead is not None:
        raise dead
    log.info("stopped")


class Health:
    """What grpc.health.v1 and /readyz say: SERVING is a task that a call may be for now."""

    def __init__(self, servicer: InferenceServicer, deployment: Deployment) -> None:
        self.servicer = health.aio.HealthServicer()
        self._inference = servicer
        self._deployment = deployment

    def state(self) -> str:
        """loading, serving or draining; draining too while every task changes its model."""
        if self._inference.state == "serving" and not any(self._serving().values()):
            return "draining"
        return self._inference.state

    async def tell(self) -> None:
        overall = self.state() == "serving"
        services = {"": overall, SERVICE_NAMES[0]: overall} | self._serving()
        for service, serving in services.items():
            await self.servicer.set(service, SERVING if serving else NOT_SERVING)

    def _serving(self) -> dict[str, bool]:
        on = self._inference.state == "serving"
        return {task: on and self._deployment.is_serving(task) for task in self._deployment.tasks}


async def stopped_or_dead(
    servicer: InferenceServicer, deployment: Deployment, checks: Health, stopping: asyncio.Event
) -> EngineDead | None:
    """Follow the choice until a signal, or until an engine is found dead, in a call or a check."""
    watching = asyncio.create_task(deployment.watch(checks.tell))
    try:
        while not stopping.is_set():
            servicer.alarm.clear()
            try:
                deployment.check()
            except EngineDead as dead:
                return dead
            if watching.done():
                # It ends by an error only, which nothing here foresaw.
                return EngineDead(f"the aliases are no longer watched: {watching.exception()!r}")
            waits = [asyncio.ensure_future(event.wait()) for event in (stopping, servicer.alarm)]
            await asyncio.wait(waits, timeout=CHECK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return None
    finally:
        watching.cancel()
        await asyncio.wait([watching], timeout=LAST_ANSWERS_S)


async def started(deployment: Deployment, stopping: asyncio.Event) -> bool:
    """Loading may take minutes; False when a signal ended it. Raises EngineLoadError."""
    loading = asyncio.create_task(deployment.start())
    signalled = asyncio.create_task(stopping.wait())
    await asyncio.wait((loading, signalled), return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if loading.done():
        loading.result()
        return True
    loading.cancel()
    await asyncio.wait((loading,), timeout=LAST_ANSWERS_S)
    return False
