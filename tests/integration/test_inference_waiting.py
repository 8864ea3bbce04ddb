"""What keeps an item from its answer is told, and what a worker that hangs has goes elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.enrich import retries
from reviewmesh_protos.inference.v1 import inference_pb2
from tests.inference import Driver, ScriptedWorker, soon
from tests.integration.test_inference_breakage import Peer
from tests.mesh import free_port

DriverFactory = Callable[..., Driver]
WorkerFactory = Callable[..., ScriptedWorker]
# Two health checks that time out, and what is between them; far from the 120 s of a call.
ELSEWHERE_WITHIN_S = 30


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[WorkerFactory]:
    made: list[ScriptedWorker] = []

    def make(**options: Any) -> ScriptedWorker:
        made.append(ScriptedWorker(tmp_path / f"worker-{len(made)}", **options))
        made[-1].start()
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


@pytest.fixture
def drive() -> Iterator[DriverFactory]:
    made: list[Driver] = []

    def make(*addresses: str, **options: float) -> Driver:
        made.append(Driver(addresses, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.client.close()


def waits_for(driver: Driver, offset: int, what: str) -> None:
    soon(lambda: what in driver.client.waits_for(0, offset), f"{offset} waits for {what!r}")


def test_where_an_item_is_that_waits(make_worker: WorkerFactory, drive: DriverFactory) -> None:
    worker = make_worker(max_in_flight=2)
    driver = drive(worker.address)
    # The first answer tells how many places there are.
    driver.submit(["first"])
    driver.wait()
    worker.script(held=["held"])
    driver.submit(["held", "held too", "third"])
    waits_for(driver, 1, f"the worker at {worker.address} has had it for 0 s")
    waits_for(driver, 1, f"the worker at {worker.address} has had it for 1 s")
    waits_for(driver, 3, "it waits for room at a worker")
    worker.script()
    driver.wait()
    assert [driver.client.waits_for(0, offset) for offset in range(5)] == [""] * 5
    assert driver.client.waits_for(1, 1) == ""


def test_an_item_without_a_worker_waits_for_one(drive: DriverFactory) -> None:
    address = f"127.0.0.1:{free_port()}"
    driver = drive(address)
    driver.submit(["text"])
    waits_for(driver, 0, f"no worker for task ner reachable at {address}")


def test_an_item_that_is_tried_again_says_when(
    drive: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_BACKOFF_S", 100.0)
    monkeypatch.setattr(retries, "LONGEST_BACKOFF_S", 100.0)

    def busy(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        error = inference_pb2.ItemError(code="BUSY", message="come again", retryable=True)
        return inference_pb2.InferResponse(results=[inference_pb2.Result(id="0", error=error)])

    peer = Peer(busy, 1_000_000)
    try:
        driver = drive(peer.address)
        driver.submit(["text"])
        waits_for(driver, 0, "it is tried again in ")
    finally:
        peer.server.stop(0).wait(5)


def test_what_a_worker_that_hangs_has_goes_elsewhere(
    make_worker: WorkerFactory, drive: DriverFactory
) -> None:
    hanging = make_worker()
    hanging.script(held=["text"])
    driver = drive(hanging.address, f"127.0.0.1:{(port := free_port())}")
    driver.submit([f"text {number}" for number in range(64)])
    soon(lambda: hanging.in_flight() == 64, "it has all of them")
    hanging.process.signal(signal.SIGSTOP)
    make_worker(port=port)
    answers = driver.wait(ELSEWHERE_WITHIN_S)
    assert all(answer.output is not None and answer.attempts == 2 for answer in answers)


@pytest.mark.parametrize("company", [0, 63])
def test_a_text_that_is_never_answered_costs_no_others(
    make_worker: WorkerFactory, drive: DriverFactory, company: int
) -> None:
    worker = make_worker()
    worker.script(held=["poison"])
    driver = drive(worker.address, call_timeout_s=6.0, max_attempts=2)
    driver.submit(["poison", *[f"text {number}" for number in range(company)]])
    waits_for(driver, 0, "has had it for 4 s")
    waits_for(driver, 0, "has had it for 0 s")
    soon(lambda: driver.finished() == company, "its company is answered")
    for _ in range(3):
        driver.submit([f"later {number}" for number in range(300)])
        soon(lambda: driver.finished() == driver.submitted - 1, "what came later is answered")
    assert 0 not in driver.answers, "they waited for it"
    answers = driver.wait()
    assert [index for index, answer in enumerate(answers) if answer.output is None] == [0]
    assert "DEADLINE_EXCEEDED" in (answers[0].error or "") and answers[0].attempts == 2
    assert {answer.attempts for answer in answers[1 + company :]} == {1}
