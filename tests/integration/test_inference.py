"""The gRPC path between enrichers and workers: the real server, the real client."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from reviewmesh.avro.codec import Codec
from reviewmesh.enrich import pool
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_protos.metadata import NOT_STARTED
from tests.broker import TestStack
from tests.inference import SOON_S, TASK, Driver, ScriptedWorker, infer, soon
from tests.mesh import Mesh

WorkerFactory = Callable[..., ScriptedWorker]
DriverFactory = Callable[..., Driver]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = "00-11111111111111111111111111111111-2222222222222222-00"


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[WorkerFactory]:
    made: list[ScriptedWorker] = []

    def make(**options: Any) -> ScriptedWorker:
        made.append(ScriptedWorker(tmp_path / f"worker-{len(made)}", **options))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker(tmp_path_factory.mktemp("worker"))
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def worker(shared_worker: ScriptedWorker) -> ScriptedWorker:
    """For tests that leave it as it was; its counters go on."""
    shared_worker.script()
    # The one engine thread may still be at what an earlier test left to it.
    shared_worker.stub.Infer(infer(["idle?"]), timeout=SOON_S)
    return shared_worker


@pytest.fixture
def own_worker(make_worker: WorkerFactory) -> ScriptedWorker:
    """For tests that kill it."""
    worker = make_worker()
    worker.start()
    return worker


@pytest.fixture
def drive() -> Iterator[DriverFactory]:
    made: list[Driver] = []

    def make(*workers: ScriptedWorker | str, **options: float) -> Driver:
        addresses = [w if isinstance(w, str) else w.address for w in workers]
        made.append(Driver(addresses, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.client.close()


def texts(count: int) -> list[str]:
    return [f"Number {number} came from Anna" for number in range(count)]


def refusal(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


# -- one worker ------------------------------------------------------------------------------


def test_describe_and_reflection_tell_what_a_worker_serves(worker: ScriptedWorker) -> None:
    described = worker.stub.Describe(inference_pb2.DescribeRequest(), timeout=5)
    assert [task.task for task in described.tasks] == ["ner", "topic", "sentiment"]
    assert described.tasks[0].model == "scripted" and described.tasks[0].labels
    assert described.limits.max_in_flight_items == 256
    assert described.limits.max_items_per_call > 0 < described.limits.max_text_code_points
    reflection = ProtoReflectionDescriptorDatabase(worker.channel)
    assert set(reflection.get_services()) >= {
        "inference.v1.InferenceService",
        "grpc.health.v1.Health",
    }
    found = reflection.FindFileContainingSymbol("inference.v1.InferenceService")
    assert [method.name for method in found.service[0].method] == [
        "Infer",
        "InferStream",
        "Describe",
    ]


def test_outputs_lineage_and_usage_come_back(worker: ScriptedWorker, drive: DriverFactory) -> None:
    driver = drive(worker)
    driver.submit(["👍 Anna liked it", "nobody there"])
    first, second = driver.wait()
    assert isinstance(first.output, inference_pb2.NerOutput)
    assert [(e.start, e.end, e.text) for e in first.output.entities] == [(2, 6, "Anna")]
    assert isinstance(second.output, inference_pb2.NerOutput) and not second.output.entities
    assert first.lineage is not None and first.lineage.engine == "scripted"
    assert first.usage is not None and first.usage.HasField("inference_ms")
    assert (first.attempts, first.error) == (1, None)


def test_a_full_worker_refuses_with_a_hint_and_everything_finishes(
    make_worker: WorkerFactory, drive: DriverFactory
) -> None:
    worker = make_worker(max_in_flight=8)
    worker.script(delay_ms=20)
    worker.start()
    driver = drive(worker, batch_items=4)
    driver.submit(texts(100))
    answers = driver.wait()
    assert all(answer.output is not None and answer.attempts == 1 for answer in answers)
    assert worker.refused("RESOURCE_EXHAUSTED") > 0

    worker.script(delay_ms=1000)
    with ThreadPoolExecutor() as threads:
        holding = threads.submit(worker.stub.Infer, infer(texts(8)), timeout=10)
        soon(lambda: worker.in_flight() == 8, "the worker is full")
        refused = refusal(lambda: worker.stub.Infer(infer(["one more"]), timeout=5))
        assert holding.result().results
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 20 <= int(dict(refused.trailing_metadata())["retry-after-ms"]) <= 500


def test_a_worker_that_others_fill_gets_smaller_calls(
    make_worker: WorkerFactory, drive: DriverFactory
) -> None:
    worker = make_worker(max_in_flight=64)
    worker.script(held=["stranger"])
    worker.start()
    with ThreadPoolExecutor() as threads:
        strangers = threads.submit(worker.stub.Infer, infer(["stranger"] * 56), timeout=2 * SOON_S)
        soon(lambda: worker.in_flight() == 56, "strangers hold most places")
        driver = drive(worker, batch_items=32)
        driver.submit(texts(100))
        answers = driver.wait()
        assert not strangers.done() and worker.refused("RESOURCE_EXHAUSTED") >= 2
        worker.script()
        assert len(strangers.result().results) == 56
    assert all(answer.output is not None and answer.attempts == 1 for answer in answers)


def test_interactive_calls_have_places_and_their_turn_before_a_backfill(
    make_worker: WorkerFactory,
) -> None:
    worker = make_worker(max_in_flight=200)
    worker.start()
    worker.script(delay_ms=500)
    backfill = inference_pb2.LANE_BACKFILL
    with ThreadPoolExecutor() as threads:
        holding = threads.submit(
            worker.stub.Infer, infer(texts(150), lane=backfill), timeout=SOON_S
        )
        soon(lambda: worker.in_flight() == 150, "the backfill has its share")
        refused = refusal(
            lambda: worker.stub.Infer(infer(["one more"], lane=backfill), timeout=SOON_S)
        )
        assert worker.stub.Infer(infer(["Anna waits"]), timeout=SOON_S).results
        assert not holding.done() and worker.metric("reviewmesh_worker_waiting_items") > 32
        assert len(holding.result().results) == 150
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "150 of 150 items of a backfill" in refused.details()


def test_who_hangs_up_frees_the_workers_room(
    own_worker: ScriptedWorker, drive: DriverFactory
) -> None:
    worker = own_worker
    # Far longer than the test waits: whatever is freed, an answer does not free it.
    worker.script(delay_ms=60_000)
    driver = drive(worker, batch_items=20)
    driver.submit(texts(1), token="first")
    soon(lambda: worker.in_flight() == 1, "the engine runs the first")
    waiting = "reviewmesh_worker_waiting_items"
    driver.submit(texts(21)[1:], token="others")
    soon(lambda: worker.metric(waiting) == 20, "the others are in line")

    late = refusal(lambda: worker.stub.Infer(infer(["x"]), timeout=0.5))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    soon(lambda: worker.in_flight() == 21, "a call past its deadline is over at the worker")
    assert worker.metric(waiting) == 20

    driver.client.cancel(lambda token: token == "others")
    soon(lambda: worker.metric(waiting) == 0, "nobody waits for them")
    assert worker.in_flight() == 1
    driver.client.cancel(lambda token: token == "first")
    soon(lambda: worker.in_flight() == 0, "its room is free")
    assert driver.finished() == 0


def test_batches_are_cut_by_bytes(worker: ScriptedWorker, drive: DriverFactory) -> None:
    small = f'reviewmesh_worker_call_items_bucket{{le="2.0",task="{TASK}"}}'
    all_calls = f'reviewmesh_worker_call_items_count{{task="{TASK}"}}'
    before = worker.metric(small), worker.metric(all_calls)
    driver = drive(worker, batch_items=32, batch_bytes=1024 * 1024)
    driver.submit([str(number) + "👍" * 99_000 for number in range(40)])
    assert all(answer.output is not None for answer in driver.wait())
    # Two of 400 KB fit into 1 MiB, 32 would have fitted by number.
    calls_of_two = worker.metric(small) - before[0]
    assert calls_of_two == worker.metric(all_calls) - before[1] >= 20


def test_an_invalid_item_is_refused_once_and_alone(
    worker: ScriptedWorker, drive: DriverFactory
) -> None:
    refused_before = worker.refused("INVALID_ARGUMENT")
    driver = drive(worker)
    driver.submit(["x" * 100_001])
    (answer,) = driver.wait()
    assert answer.output is None and answer.attempts == 1
    assert answer.error is not None and "at most 100000 code points" in answer.error
    assert worker.refused("INVALID_ARGUMENT") == refused_before + 1
    driver.submit([*texts(9), "y" * 100_001, *texts(9)])
    answers = driver.wait()[1:]
    assert [index for index, a in enumerate(answers) if a.output is None] == [9]
    assert [a.attempts for a in answers] == [1] * 19


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (infer(["x"], task="poetry"), "expected a task of ['ner', 'sentiment', 'topic'], got"),
        (infer([]), "expected 1 to 256 items, got 0"),
        (infer(["x"] * 257), "expected 1 to 256 items, got 257"),
    ],
)
def test_a_call_that_can_never_succeed_says_what_was_expected(
    worker: ScriptedWorker, request_: inference_pb2.InferRequest, expected: str
) -> None:
    refused = refusal(lambda: worker.stub.Infer(request_, timeout=5))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in refused.details()


def test_a_poisoned_item_fails_alone_and_its_trace_is_in_the_workers_log(
    worker: ScriptedWorker, drive: DriverFactory
) -> None:
    worker.script(poison=["arsenic"])
    driver = drive(worker)
    driver.submit([*texts(20), "arsenic"], trace=OTHER_TRACE)
    driver.submit(["arsenic too"], trace=TRACE)
    driver.submit(texts(5), trace="bad\n\ud800 trace")
    answers = driver.wait()
    assert [index for index, a in enumerate(answers) if a.output is None] == [20, 21]
    assert "Poisoned" in (answers[21].error or "")
    assert all(answer.usage and answer.usage.HasField("inference_ms") for answer in answers)
    events = [json.loads(line) for line in worker.log.read_text().splitlines() if line[:1] == "{"]
    failed = [event["traceparent"] for event in events if event["event"] == "item failed"]
    assert sorted(failed) == sorted([TRACE, OTHER_TRACE])


# -- coming and going ------------------------------------------------------------------------


def test_a_worker_that_loads_says_so_and_can_be_stopped(make_worker: WorkerFactory) -> None:
    worker = make_worker()
    worker.script(load_ms=60_000)
    worker.process.start()
    soon(lambda: worker.process.get("/healthz")[0] == 200, "the worker listens")
    grpc.channel_ready_future(worker.channel).result(timeout=SOON_S)
    assert worker.health() == "NOT_SERVING"
    assert worker.process.get("/readyz")[0] == 503
    refused = refusal(lambda: worker.stub.Infer(infer(["x"]), timeout=5))
    assert refused.code() is grpc.StatusCode.UNAVAILABLE and "loading" in refused.details()
    worker.process.signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0


def test_a_draining_worker_finishes_its_calls_and_another_takes_over(
    make_worker: WorkerFactory, drive: DriverFactory
) -> None:
    leaving, staying = make_worker(), make_worker()
    leaving.script(delay_ms=1500)
    for worker in (leaving, staying):
        worker.start()
    driver = drive(leaving, staying, batch_items=4)
    driver.submit(texts(64))
    soon(lambda: leaving.in_flight() > 0, "the leaving worker has calls in flight")
    leaving.process.signal(signal.SIGTERM)
    soon(lambda: leaving.health() == "NOT_SERVING", "health says that it drains")
    refused = refusal(lambda: leaving.stub.Infer(infer(["x"]), timeout=5))
    assert refused.code() is grpc.StatusCode.UNAVAILABLE and "draining" in refused.details()
    assert dict(refused.trailing_metadata())[NOT_STARTED] == "draining"
    driver.submit(texts(64))
    answers = driver.wait()
    assert all(answer.output is not None and answer.attempts == 1 for answer in answers)
    assert leaving.process.wait(10) == 0


@pytest.mark.parametrize("asked", [True, False])
def test_a_worker_whose_engine_died_ends_and_is_missed(
    own_worker: ScriptedWorker, asked: bool
) -> None:
    worker = own_worker
    worker.script(dead=True)
    if asked:
        refused = refusal(lambda: worker.stub.Infer(infer(["x"]), timeout=5))
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert worker.process.wait(10) == 1


def test_a_killed_worker_is_waited_for_by_name_and_used_again(
    own_worker: ScriptedWorker, drive: DriverFactory
) -> None:
    worker = own_worker
    driver = drive(worker)
    worker.script(delay_ms=500)
    driver.submit(texts(64))
    soon(lambda: worker.in_flight() > 0, "calls are in flight")
    worker.process.kill()
    soon(lambda: driver.client.waiting_for() != "", "the client misses its worker")
    missing = f"no worker for task ner reachable at {worker.address} (UN"
    assert missing in driver.client.waiting_for()
    worker.script()
    worker.start()
    answers = driver.wait()
    assert all(answer.output is not None for answer in answers)
    assert driver.client.waiting_for() == ""


def test_an_idle_client_notices_that_its_worker_has_gone(
    worker: ScriptedWorker, drive: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CHECK_EVERY_S", 0.2)
    monkeypatch.setattr(pool, "CHECK_TIMEOUT_S", 0.5)
    driver = drive(worker)
    soon(lambda: driver.client.waiting_for() == "", "the worker is found")
    worker.process.signal(signal.SIGSTOP)
    soon(lambda: worker.address in driver.client.waiting_for(), "a worker that hangs is missed")
    worker.process.signal(signal.SIGCONT)
    soon(lambda: driver.client.waiting_for() == "", "it is found again")


def test_a_new_replica_gets_traffic_while_the_others_are_busy(
    worker: ScriptedWorker, make_worker: WorkerFactory, drive: DriverFactory
) -> None:
    second = make_worker()
    worker.script(delay_ms=400)
    driver = drive(worker, second, batch_items=1)
    driver.submit(texts(1_000))
    soon(lambda: worker.in_flight() > 0, "the first is busy")
    second.start()
    served = f'reviewmesh_worker_items_total{{model_version="1",outcome="ok",task="{TASK}"}}'
    assert soon(lambda: second.metric(served) > 0, "the second gets traffic") < 10
    worker.script()
    assert all(answer.output is not None for answer in driver.wait())


def test_addresses_follow_dns_and_a_removed_one_loses_no_call(
    worker: ScriptedWorker,
    make_worker: WorkerFactory,
    drive: DriverFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = make_worker(host="127.0.0.2", port=worker.port)
    second.start()
    found = ["127.0.0.1"]
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        if host != "workers.test":
            return real(host, *rest, **options)
        if not found:
            raise socket.gaierror("no such name")
        return [row for ip in found for row in real(ip, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(pool, "RESOLVE_EVERY_S", 0.1)
    worker.script(delay_ms=2000)
    driver = drive(f"workers.test:{worker.port}")
    driver.submit(texts(8))
    soon(lambda: worker.in_flight() == 8, "the first has calls in flight")
    found[:] = ["127.0.0.2"]
    driver.submit([f"{text} again" for text in texts(8)])
    soon(lambda: driver.finished() == 8, "the second, new in DNS, gets traffic")
    found.clear()
    driver.submit([f"{text} once more" for text in texts(8)])
    answers = driver.wait()
    # The first was in its call when its address left; a DNS that fails takes nobody away.
    assert all(answer.output is not None and answer.attempts == 1 for answer in answers)


def accepted(codec: Codec, count: int) -> list[bytes]:
    example = resources.files("reviewmesh_schemas").joinpath("examples/accepted_review.json")
    (record,) = json.loads(example.read_text())
    return [codec.encode({**record, "review_id": f"r-{n}"}) for n in range(count)]


def test_an_enricher_without_workers_says_whom_it_misses_and_stops_at_once(
    stack: TestStack, prefix: str, tmp_path: Path
) -> None:
    with Mesh(stack, prefix, tmp_path) as mesh:
        mesh.apply_topics()
        enricher = mesh.add("enricher-ner")
        enricher.start()
        address = f"127.0.0.1:{mesh.worker_ports['worker']}"
        missing = f"no worker for task ner reachable at {address}"
        mesh.wait_for(lambda: missing in enricher.get("/readyz")[1], 20, "/readyz names it")
        # It does all that it can: workers that are gone must not block an update of the enricher.
        mesh.wait_for(enricher.is_ready, 20, "ready without a worker")
        assert enricher.get("/healthz")[0] == 200
        mesh.wait_for(lambda: missing in enricher.log.read_text(), 20, "the log names it")

        for value in accepted(mesh.codec("reviews.accepted"), 5):
            mesh.publish_raw(value, topic="reviews.accepted")
        waiting = 'reviewmesh_inference_waiting_items{task="ner"} 5.0'
        mesh.wait_for(lambda: waiting in enricher.get("/metrics")[1], 20, "reviews wait")
        enricher.signal(signal.SIGTERM)
        # Half of the grace time: nobody could have finished anything within it.
        assert enricher.wait(10) == 0
        enricher.start()
        mesh.add("worker").start()
        serving = 'reviewmesh_workers_serving{task="ner"} 1.0'
        mesh.wait_for(lambda: serving in enricher.get("/metrics")[1], 20, "it has a worker")
        mesh.wait_for(lambda: len(mesh.read("reviews.ner")) == 5, 20, "all five have results")
        assert {record["status"] for record in mesh.read("reviews.ner")} == {"OK"}


def partly_answered(worker: ScriptedWorker, drive: DriverFactory, delay_ms: int) -> Driver:
    """A client that has a part of the results of its calls from a slow worker."""
    worker.script(delay_ms=delay_ms)
    driver = drive(worker)
    # The first call, unary, shows that this worker is slow.
    driver.submit(texts(1))
    driver.wait()
    driver.submit(texts(65)[1:])
    # The engine answers batches of 32: a first part comes while the rest is in line.
    soon(lambda: 1 < driver.finished() < driver.submitted, "a part of the results")
    return driver


def test_slow_results_are_streamed_each_as_soon_as_it_is_there(
    own_worker: ScriptedWorker, drive: DriverFactory
) -> None:
    driver = partly_answered(own_worker, drive, delay_ms=400)
    assert all(answer.output is not None and answer.attempts == 1 for answer in driver.wait())
    assert own_worker.in_flight() == 0


def test_a_worker_that_dies_in_mid_stream_costs_only_what_it_had_not_answered(
    own_worker: ScriptedWorker, drive: DriverFactory
) -> None:
    driver = partly_answered(own_worker, drive, delay_ms=600)
    own_worker.process.kill()
    own_worker.script()
    own_worker.start()
    answers = driver.wait()
    assert all(answer.output is not None for answer in answers)
    assert {answer.attempts for answer in answers} == {1, 2}
