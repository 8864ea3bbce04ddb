"""What strangers may do to a worker's port: it costs them, not the worker and not its callers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_worker.serving.receiving import _parsed
from reviewmesh_worker.serving.server import CALLS_PER_CONNECTION
from reviewmesh_worker.serving.servicer import (
    MAX_ID,
    MAX_ITEMS_PER_CALL,
    MAX_REQUEST_BYTES,
    MAX_TEXT_CODE_POINTS,
)
from reviewmesh_worker.serving.streams import MAX_OPEN
from tests.broker import wait_until
from tests.inference import SOON_S, TASK, ScriptedWorker, infer

CALLS = 200
ROOM_FOR_CALLS_MB = 500


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker(tmp_path_factory.mktemp("worker"))
    worker.start()
    yield worker
    worker.stop()


def answers(worker: ScriptedWorker) -> bool:
    return len(worker.stub.Infer(infer(["Anna"]), timeout=SOON_S).results) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "i" * (MAX_ID + 1)), ("language", "e" * 1_000), ("traceparent", "0" * 1_000)],
)
def test_a_field_that_is_too_long_is_refused_by_name(
    worker: ScriptedWorker, field: str, value: str
) -> None:
    item = inference_pb2.Item(**({"id": "1", "text": "Anna"} | {field: value}))
    with pytest.raises(grpc.RpcError) as refused:
        worker.stub.Infer(inference_pb2.InferRequest(task=TASK, items=[item]), timeout=SOON_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{field}s of at most" in (refused.value.details() or "")
    assert answers(worker)


def test_the_longest_text_passes_whatever_its_letters(worker: ScriptedWorker) -> None:
    text = "\U0001f600" * MAX_TEXT_CODE_POINTS
    assert worker.stub.Infer(infer([text]), timeout=SOON_S).results[0].id == "0"


def test_many_large_calls_at_once_cost_bounded_memory(worker: ScriptedWorker) -> None:
    """More than the worker takes: they are refused, before and after they are read."""
    assert worker.process.popen is not None
    process = psutil.Process(worker.process.popen.pid)
    before = process.memory_info().rss
    worker.script(delay_ms=200)
    too_large = infer(["x" * (MAX_REQUEST_BYTES + 1)])
    large = infer(["x" * 90_000] * 40)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(worker.address, options=options) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        calls = [
            stub.Infer.future(large if number % 2 else too_large, timeout=30)
            for number in range(CALLS)
        ]
        codes = [call.code() for call in calls]
    worker.script()
    assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
    assert (process.memory_info().rss - before) / 2**20 < ROOM_FOR_CALLS_MB
    assert answers(worker)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100])
def test_connections_that_speak_no_grpc_do_not_keep_others_away(
    worker: ScriptedWorker, said: bytes
) -> None:
    with ExitStack() as stack:
        for _ in range(500):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", worker.port), 5))
            idle.sendall(said)
        assert answers(worker)
    assert answers(worker)


def test_the_port_says_what_it_takes(worker: ScriptedWorker) -> None:
    limits = worker.stub.Describe(inference_pb2.DescribeRequest(), timeout=SOON_S).limits
    assert limits.max_message_bytes == MAX_REQUEST_BYTES


def test_a_call_of_millions_of_empty_items_costs_no_more_than_another(
    worker: ScriptedWorker,
) -> None:
    """Each is two bytes on the wire and fifty in memory."""
    assert worker.process.popen is not None
    process = psutil.Process(worker.process.popen.pid)
    before = process.memory_info().rss
    exploding = b"\x0a\x03ner" + b"\x12\x00" * (MAX_REQUEST_BYTES // 2 - 100)
    most = before
    with grpc.insecure_channel(worker.address) as channel:
        ask: Any = channel.unary_unary("/inference.v1.InferenceService/Infer")
        for call in [ask.future(exploding, timeout=60) for _ in range(32)]:
            refused = call.exception()
            assert isinstance(refused, grpc.RpcError)
            assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
            most = max(most, process.memory_info().rss)
    assert (most - before) / 2**20 < ROOM_FOR_CALLS_MB
    assert answers(worker)


@pytest.mark.parametrize(
    "before", [b"", b"\x0a\x03ner", b"\x7b\x7c", b"\x28\x01" * 3, b"\x2d0000" + b"\x2900000000"]
)
def test_items_are_counted_before_a_call_is_parsed(before: bytes) -> None:
    """Whatever fields stand before them: a group, numbers."""

    def parse(message: bytes) -> object:
        raise AssertionError("parsed")

    assert _parsed(before + b"\x12\x00" * 2_000, parse) == (
        None,
        "expected 1 to 256 items, got more",
    )


@given(
    texts=st.lists(st.text(max_size=300), max_size=MAX_ITEMS_PER_CALL), task=st.text(max_size=200)
)
def test_every_call_within_the_limits_is_parsed(texts: list[str], task: str) -> None:
    request = inference_pb2.InferRequest(
        task=task,
        items=[inference_pb2.Item(id="1", text=text) for text in texts],
        lane=inference_pb2.LANE_INTERACTIVE,
    )
    found, problem = _parsed(request.SerializeToString(), inference_pb2.InferRequest.FromString)
    assert (found, problem) == (request, "")


def test_thousands_of_health_watches_leave_room_for_calls(worker: ScriptedWorker) -> None:
    with ExitStack() as stack:
        # A call that nobody holds is cancelled.
        watches: list[Any] = []
        for number in range(2 * MAX_OPEN // CALLS_PER_CONNECTION):
            options = [("grpc.use_local_subchannel_pool", 1), ("reviewmesh.test", number)]
            channel = stack.enter_context(grpc.insecure_channel(worker.address, options=options))
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            watches += [health.Watch(request, timeout=60) for _ in range(CALLS_PER_CONNECTION)]
        codes = [first_of(watch) for watch in watches]
        assert codes.count("RESOURCE_EXHAUSTED") == MAX_OPEN
        assert answers(worker)
    wait_until(lambda: first_of(a_watch(worker)) == "watches", SOON_S, "a place is free again")


def a_watch(worker: ScriptedWorker) -> Any:
    stub = health_pb2_grpc.HealthStub(worker.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(), timeout=SOON_S)


def first_of(watch: Any) -> str:
    try:
        next(watch)
    except grpc.RpcError as refused:
        return refused.code().name
    return "watches"
