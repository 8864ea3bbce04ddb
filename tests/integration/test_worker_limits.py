"""What strangers may do to a worker's port: it costs them, not the worker and not its callers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import psutil
import pytest

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_worker.servicer import MAX_ID, MAX_REQUEST_BYTES, MAX_TEXT_CODE_POINTS
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
    assert f"{field}s of at most" in refused.value.details()
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
        ask = channel.unary_unary("/inference.v1.InferenceService/Infer")
        for call in [ask.future(exploding, timeout=60) for _ in range(32)]:
            refused = call.exception()
            assert isinstance(refused, grpc.RpcError)
            assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
            most = max(most, process.memory_info().rss)
    assert (most - before) / 2**20 < ROOM_FOR_CALLS_MB
    assert answers(worker)
