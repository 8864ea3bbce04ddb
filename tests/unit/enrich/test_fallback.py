"""The fallback where its worker answers oddly, and where partitions are taken away meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from reviewmesh import metrics
from reviewmesh.enrich.breaker import Breaker
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.departures import Charge, Release, Reserve, Step
from reviewmesh.enrich.fallback import LONGEST_PAUSE_S, PAUSE_S, FallbackPlan
from reviewmesh.enrich.items import WorkItem
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.routes import FALLBACK, FallbackLimits
from reviewmesh.enrich.spending import Spending
from reviewmesh.leaving.budgets import parse_budgets
from reviewmesh.leaving.policy import parse_policy
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_protos.metadata import OVER_BOUND

TASK, REGION, AT = "topic", "eu", 0
SERVICE = "inference.v1.InferenceService"
NOWHERE = "127.0.0.1:1"
SOON_S = 15.0
LEAVES_AFTER_S = 0.2

Request = inference_pb2.InferRequest


class Outside:
    """A worker in this process that answers any bytes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.answer: Callable[[Request], bytes] = lambda request: b""
        self.refuses = ""
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        health_pb2_grpc.add_HealthServicer_to_server(self._health(), self._server)
        unary: Any = grpc.unary_unary_rpc_method_handler(self._infer, Request.FromString)
        stream: Any = grpc.unary_stream_rpc_method_handler(self._stream, Request.FromString)
        methods = {"Infer": unary, "InferStream": stream}
        handler = grpc.method_handlers_generic_handler(SERVICE, methods)
        self._server.add_generic_rpc_handlers((handler,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _health(self) -> health.HealthServicer:
        servicer = health.HealthServicer()
        servicer.set(TASK, health_pb2.HealthCheckResponse.SERVING)
        return servicer

    def _infer(self, request: Request, context: Any) -> bytes:
        if self.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refuses)
        self.texts += [item.text for item in request.items]
        return self.answer(request)

    def _stream(self, request: Request, context: Any) -> Iterator[bytes]:
        yield self._infer(request, context)

    def stop(self) -> None:
        self._server.stop(None).wait()


def pool(addresses: tuple[str, ...]) -> PoolConfig:
    serving = metrics.FALLBACK_WORKERS_SERVING.labels(TASK, REGION)
    return PoolConfig(TASK, addresses, "a setting", serving, metrics.CALLS.labels(TASK, FALLBACK))


def failing(code: str) -> Callable[[Request], bytes]:
    def answer(request: Request) -> bytes:
        error = inference_pb2.ItemError(code=code, message="so it is")
        usage = inference_pb2.Usage(provider_requests=0)
        results = [
            inference_pb2.Result(id=item.id, error=error, usage=usage) for item in request.items
        ]
        return inference_pb2.InferResponse(results=results).SerializeToString()

    return answer


class World:
    """A client without a primary worker; the test is its polling thread."""

    def __init__(self, outside: Outside) -> None:
        spending = Spending(parse_budgets("all: unlimited\n", 1), time.time)
        spending.open(AT, {})
        plan = FallbackPlan(
            pools={REGION: pool((outside.address,))},
            names=None,
            policy=parse_policy("all:\n  regions: [eu]\n  mask: [patterns]\n"),
            limits=FallbackLimits(LEAVES_AFTER_S, 600),
            payments=spending,
        )
        self.client = InferenceClient(TASK, [NOWHERE], fallback=plan)
        self.client.start()
        self.steps: list[Step] = []

    def submit(self, *texts: str, token: object = "t") -> None:
        items = [
            WorkItem(
                token=token,
                partition=AT,
                offset=offset,
                text=text,
                language="en",
                traceparent=None,
                business_id=None,
                accepted_s=time.time(),
            )
            for offset, text in enumerate(texts)
        ]
        self.client.submit(items)

    def lets_leave(self) -> None:
        for step in self.client.departure_steps():
            self.steps.append(step)
            if isinstance(step, Reserve):
                self.client.reservation_committed(step.departure)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SOON_S
        while not condition():
            assert time.monotonic() < deadline, f"timed out, with {self.steps}"
            self.lets_leave()
            time.sleep(0.01)

    def of(self, kind: type) -> int:
        return sum(isinstance(step, kind) for step in self.steps)

    def in_loop(self, action: Callable[[], Any]) -> Any:
        """What it returns, called in the client's thread."""
        done: futures.Future[Any] = futures.Future()
        self.client._loop.call_soon_threadsafe(lambda: done.set_result(action()))
        return done.result(SOON_S)


@pytest.fixture
def outside() -> Iterator[Outside]:
    worker = Outside()
    yield worker
    worker.stop()


@pytest.fixture
def world(outside: Outside) -> Iterator[World]:
    made = World(outside)
    yield made
    made.client.close()


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_nobody_can_read_is_the_one_request_of_each(
    world: World, outside: Outside, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    outside.answer = lambda request: b"\xff\xff\xff\xff"
    texts = [f"text {number}" for number in range(4)]
    monkeypatch.setattr(Breaker, "is_slow", lambda self: streamed)
    # So that all are in one call.
    monkeypatch.setattr(Breaker, "room", lambda self: 0)
    world.submit(*texts)
    fallback = world.client._fallback
    assert fallback is not None
    region = fallback._regions[REGION]
    world.until(lambda: region.jobs.waiting == len(texts))
    monkeypatch.undo()
    monkeypatch.setattr(Breaker, "is_slow", lambda self: streamed)
    world.in_loop(region.calls._dispatch)
    world.until(lambda: world.of(Charge) >= len(texts))
    assert sorted(outside.texts) == texts
    assert world.of(Reserve) == world.of(Charge) == len(texts)
    assert world.of(Release) == 0


def test_a_worker_that_does_not_tell_how_often_it_asked_its_provider_is_not_believed(
    world: World, outside: Outside
) -> None:
    def answer(request: Request) -> bytes:
        output = inference_pb2.TopicOutput()
        results = [inference_pb2.Result(id=item.id, topic=output) for item in request.items]
        lineage = inference_pb2.Lineage(task=TASK, provider="openai")
        response = inference_pb2.InferResponse(results=results, lineage=lineage)
        return response.SerializeToString()

    outside.answer = answer
    world.submit("text")
    answers: list[Any] = []

    def is_answered() -> bool:
        answers.extend(answer for _, answer in world.client.completed())
        return bool(answers)

    world.until(is_answered)
    assert answers[0].output is not None and answers[0].paid is None


def test_a_text_that_is_over_the_bound_asks_more_and_more_seldom(
    world: World, outside: Outside
) -> None:
    outside.answer = failing(OVER_BOUND)
    world.submit("text")
    rests = []
    world.until(lambda: world.client._jobs.find(AT, 0) is not None)
    job = world.client._jobs.find(AT, 0)
    assert job is not None
    for times in range(1, 4):
        world.until(lambda: world.of(Release) == times)  # noqa: B023
        rests.append(job.fallback_paused_until - world.client._loop.time())
        job.fallback_paused_until = 0.0
    assert [round(rest / PAUSE_S) for rest in rests] == [1, 2, 4]
    job.fallback_refusals = 10_000
    world.until(lambda: world.of(Release) == 4)
    assert job.fallback_paused_until - world.client._loop.time() <= LONGEST_PAUSE_S


def test_what_is_withdrawn_does_not_go_over_to_one_that_has_let_go_already(world: World) -> None:
    world.submit("text", token="gone")
    asks: list[Step] = []
    deadline = time.monotonic() + SOON_S
    while not asks:
        assert time.monotonic() < deadline
        asks += world.client.departure_steps()
        time.sleep(0.01)
    fallback, calls = world.client._fallback, world.client._calls
    assert fallback is not None and calls is not None
    withdraw = calls.withdraw

    def and_look(withdrawn: Callable[[object], bool]) -> None:
        withdraw(withdrawn)
        # The primary is back: it gets what was not sent.
        world.client._loop.call_soon(fallback._recall, 0.0)

    calls.withdraw = and_look  # type: ignore[method-assign]
    call_in_loop = world.client._call_in_loop

    def tell_slowly(action: Callable[[Any], None], argument: Any) -> None:
        call_in_loop(action, argument)
        # The event loop takes its turn, and what it adds to that another one.
        for _ in range(3):
            world.in_loop(lambda: None)

    world.client._call_in_loop = tell_slowly  # type: ignore[method-assign]
    fallback._routing._limits = FallbackLimits(600, 600)
    world.client.cancel(lambda token: token == "gone")
    assert world.in_loop(lambda: world.client._jobs.waiting) == 0
    assert not fallback.has_jobs()


def test_a_text_whose_departure_is_refused_does_not_ask_at_every_look(world: World) -> None:
    world.submit("text")
    asks: list[Step] = []
    world.until(lambda: world.client._jobs.find(AT, 0) is not None)
    job = world.client._jobs.find(AT, 0)
    assert job is not None
    deadline = time.monotonic() + SOON_S
    while not asks:
        assert time.monotonic() < deadline
        asks += world.client.departure_steps()
        time.sleep(0.01)
    [step] = asks
    world.client.reservation_rejected(step.departure)
    assert (
        world.in_loop(lambda: job.fallback_paused_until - world.client._loop.time()) > PAUSE_S / 2
    )
    assert world.in_loop(lambda: world.client._jobs.waiting) == 1


def test_workers_that_fail_every_call_get_one_text_at_a_time(world: World) -> None:
    fallback = world.client._fallback
    assert fallback is not None
    workers = fallback._regions[REGION].calls.pool
    workers.any_answering = lambda: False  # type: ignore[method-assign]
    world.submit(*(f"text {number}" for number in range(4)))
    asks: list[Step] = []
    deadline = time.monotonic() + SOON_S
    while not asks:
        assert time.monotonic() < deadline
        asks += world.client.departure_steps()
        time.sleep(0.01)
    world.in_loop(fallback._check)
    assert len(asks) == 1 and len(fallback._in_fallback) == 1
    workers.any_answering = lambda: True  # type: ignore[method-assign]
    world.in_loop(fallback._check)
    assert len(fallback._in_fallback) == 4


def test_a_text_that_masking_makes_too_long_for_a_worker_waits_for_the_primary(
    world: World, outside: Outside
) -> None:
    outside.refuses = "expected texts of at most 100000 code points, got 112000"
    world.submit("text")
    world.until(lambda: world.of(Release) == 1)
    job = world.in_loop(lambda: world.client._jobs.find(AT, 0))
    assert job is not None and job.fallback_paused_until > world.client._loop.time()
    assert world.client.completed() == []
    assert world.of(Reserve) == 1 and world.of(Charge) == 0
