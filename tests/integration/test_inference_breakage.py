"""The client against workers that break the contract, as no worker of ours can be made to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from reviewmesh.enrich import breaker, retries
from reviewmesh.enrich.breaker import CALLS_PER_WORKER, FAILURES_BEFORE_EJECTION
from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from tests.inference import TASK, Driver, soon
from tests.mesh import free_port

Behave = Callable[["Peer", inference_pb2.InferRequest, Any], inference_pb2.InferResponse]
DriverFactory = Callable[..., Driver]
PeerFactory = Callable[..., "Peer"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Peer(inference_pb2_grpc.InferenceServiceServicer):
    """A healthy-looking server whose Infer does what a test wants."""

    def __init__(self, behave: Behave, max_receive_bytes: int) -> None:
        self._behave = behave
        self._lock = threading.Lock()
        self.calls: list[tuple[float, list[str]]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.metadata: list[dict[str, str]] = []
        self.server = grpc.server(
            ThreadPoolExecutor(max_workers=32),
            options=(("grpc.max_receive_message_length", max_receive_bytes),),
        )
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self, self.server)
        checks = health.HealthServicer()
        checks.set(TASK, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> inference_pb2.InferResponse:
        with self._lock:
            self.calls.append((time.monotonic(), [item.text for item in request.items]))
            self.metadata.append(dict(context.invocation_metadata()))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self._behave(self, request, context)
        finally:
            with self._lock:
                self.at_once -= 1

    def InferStream(
        self, request: inference_pb2.InferStreamRequest, context: Any
    ) -> Iterator[inference_pb2.InferStreamResponse]:
        answer = self.Infer(
            inference_pb2.InferRequest(task=request.task, items=request.items), context
        )
        yield inference_pb2.InferStreamResponse(results=answer.results)

    def Describe(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def times(self, text: str) -> list[float]:
        """When calls with that item came."""
        return [at for at, texts in self.calls if text in texts]


@pytest.fixture
def make_peer() -> Iterator[PeerFactory]:
    made: list[Peer] = []

    def make(behave: Behave, max_receive_bytes: int = 4 * 1024 * 1024) -> Peer:
        made.append(Peer(behave, max_receive_bytes))
        return made[-1]

    yield make
    for peer in made:
        peer.server.stop(0).wait(5)


@pytest.fixture
def drive() -> Iterator[DriverFactory]:
    made: list[Driver] = []

    def make(*peers: Peer | str, **options: float) -> Driver:
        addresses = [peer if isinstance(peer, str) else peer.address for peer in peers]
        made.append(Driver(addresses, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.client.close()


def good(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
    return inference_pb2.InferResponse(
        results=[
            inference_pb2.Result(id=item.id, ner=inference_pb2.NerOutput())
            for item in request.items
        ]
    )


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def holds(request: inference_pb2.InferRequest, text: str) -> bool:
    return any(item.text == text for item in request.items)


@pytest.mark.parametrize(("hint_ms", "least_s", "most_s"), [(300, 0.3, 3.0), (60_000, 0.5, 3.0)])
def test_the_hint_of_a_full_worker_is_kept_within_bounds(
    make_peer: PeerFactory, drive: DriverFactory, hint_ms: int, least_s: float, most_s: float
) -> None:
    def full_at_first(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        if len(peer.calls) == 1:
            context.set_trailing_metadata((("retry-after-ms", str(hint_ms)),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return good(peer, request, context)

    peer = make_peer(full_at_first)
    driver = drive(peer)
    driver.submit(texts(4))
    assert [answer.attempts for answer in driver.wait()] == [1, 1, 1, 1]
    (refused, _), *later = peer.calls
    assert least_s <= min(at for at, _ in later) - refused <= most_s
    # What was too large for it comes in halves.
    assert [len(some) for _, some in later] == [2, 2]


def test_without_a_hint_the_batch_was_too_large_and_is_halved(
    make_peer: PeerFactory, drive: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_BACKOFF_S", 0.01)
    peer = make_peer(good, max_receive_bytes=10_000)
    driver = drive(peer)
    driver.submit([f"{number} " + "x" * 1_500 for number in range(32)])
    driver.submit(["x" * 20_000])
    *answers, oversize = driver.wait()
    assert all(answer.output is not None and answer.attempts == 1 for answer in answers)
    assert oversize.output is None and "RESOURCE_EXHAUSTED" in (oversize.error or "")


def test_an_item_that_fails_whole_calls_is_found_and_fails_alone(
    make_peer: PeerFactory, drive: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_BACKOFF_S", 0.01)

    def fail_on_poison(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        if holds(request, "poison"):
            context.abort(grpc.StatusCode.INTERNAL, "engine fell over")
        return good(peer, request, context)

    peer = make_peer(fail_on_poison)
    driver = drive(peer, max_attempts=3)
    driver.submit([*texts(20), "poison", *texts(11)])
    answers = driver.wait()
    assert [index for index, a in enumerate(answers) if a.output is None] == [20]
    assert answers[20].attempts == 3 and "engine fell over" in (answers[20].error or "")
    alone = [seen for _, seen in peer.calls if seen == ["poison"]]
    assert len(alone) == 3


def test_retries_are_bounded_and_wait_longer_each_time(
    make_peer: PeerFactory, drive: DriverFactory
) -> None:
    def busy(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        answer = good(peer, request, context)
        for result, item in zip(answer.results, request.items, strict=True):
            if item.text.startswith("never") or (
                item.text.startswith("later") and len(peer.times(item.text)) < 3
            ):
                result.error.code, result.error.message = "BUSY", "come again"
                result.error.retryable = True
            elif item.text == "final":
                result.error.code, result.error.message = "BAD", "cannot be read"
        return answer

    peer = make_peer(busy)
    driver = drive(peer, max_attempts=3)
    driver.submit(["never", "later", "final", "fine"])
    never, later, final, fine = driver.wait()
    assert never.error == "BUSY: come again (3 attempts)" and never.attempts == 3
    assert later.output is not None and later.attempts == 3
    assert final.error == "BAD: cannot be read" and final.attempts == 1
    assert fine.output is not None and fine.attempts == 1
    assert len(peer.times("never")) == 3
    assert len(peer.times("final")) == len(peer.times("fine")) == 1
    # 0.1 s doubled per attempt, spread by half.
    first, second, third = peer.times("never")
    assert second - first >= 0.1 and third - second >= 0.2


def test_missing_doubled_and_foreign_results_give_one_answer_each(
    make_peer: PeerFactory, drive: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_BACKOFF_S", 0.01)

    def sloppy(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        answer = good(peer, request, context)
        if len(peer.calls) == 1:
            del answer.results[0]
            answer.results.append(answer.results[-1])
        answer.results.add(id="999").ner.SetInParent()
        answer.results.add(id="not a number").ner.SetInParent()
        return answer

    driver = drive(make_peer(sloppy))
    driver.submit(texts(8))
    answers = driver.wait()
    assert [answer.attempts for answer in answers] == [2, *[1] * 7]
    assert all(answer.output is not None for answer in answers)


def test_an_item_that_breaks_workers_is_found_out(
    make_peer: PeerFactory, drive: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "LONGEST_PAUSE_S", 0.05)

    def break_down(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        if holds(request, "killer"):
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return good(peer, request, context)

    peer = make_peer(break_down)
    driver = drive(peer)
    driver.submit([*texts(5), "killer", *texts(5)])
    answers = driver.wait()
    assert [index for index, a in enumerate(answers) if a.output is None] == [5]
    assert "keep breaking" in (answers[5].error or "")
    assert len(peer.times("killer")) == (retries.MAX_BROKEN_IN_BATCH + retries.MAX_BROKEN_ALONE)


def test_a_worker_that_fails_fast_does_not_draw_the_traffic(
    make_peer: PeerFactory, drive: DriverFactory
) -> None:
    def broken(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        context.abort(grpc.StatusCode.INTERNAL, "no such device")

    def slow(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        time.sleep(0.01)
        return good(peer, request, context)

    bad, well = make_peer(broken), make_peer(slow)
    driver = drive(bad, well, batch_items=1)
    began = time.monotonic()
    driver.submit(texts(300))
    assert all(answer.output is not None for answer in driver.wait())
    # What was under way when it was ejected, and one trial now and again.
    trials = 10 + (time.monotonic() - began) / (breaker.LONGEST_PAUSE_S / 2)
    assert FAILURES_BEFORE_EJECTION <= len(bad.calls) <= 2 * CALLS_PER_WORKER + trials
    assert len(well.calls) >= 300


def test_a_worker_that_hangs_is_tried_with_one_call_at_a_time(
    make_peer: PeerFactory, drive: DriverFactory
) -> None:
    woken = threading.Event()

    def hang(peer: Peer, request: inference_pb2.InferRequest, context: Any) -> Any:
        woken.wait(10)
        return good(peer, request, context)

    peer = make_peer(hang)
    driver = drive(peer, batch_items=1, call_timeout_s=0.5, max_attempts=20)
    driver.submit(texts(CALLS_PER_WORKER + 4))
    soon(lambda: len(peer.calls) == CALLS_PER_WORKER, "as many calls as a worker takes")
    soon(lambda: len(peer.calls) >= CALLS_PER_WORKER + 2, "it is tried again")
    trials = [at for at, _ in peer.calls[CALLS_PER_WORKER:]]
    woken.set()
    assert all(answer.output is not None for answer in driver.wait())
    # Each trial waits for the one before it to pass its deadline.
    assert min(b - a for a, b in pairwise(trials)) >= 0.4


def test_a_call_carries_its_first_trace_and_an_illegal_one_takes_nothing_along(
    make_peer: PeerFactory, drive: DriverFactory
) -> None:
    peer = make_peer(good)
    driver = drive(peer, batch_items=1)
    driver.submit(["illegal"], trace="bad\n\ufffd")
    driver.submit(["foreign"], trace=TRACE.upper())
    driver.submit(["traced"], trace=TRACE)
    assert all(answer.output is not None and answer.attempts == 1 for answer in driver.wait())
    assert {
        texts[0]: metadata.get("traceparent")
        for (_, texts), metadata in zip(peer.calls, peer.metadata, strict=True)
    } == {"illegal": None, "foreign": None, "traced": TRACE}


def test_a_text_that_cannot_be_sent_fails_alone(
    make_peer: PeerFactory, drive: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_BACKOFF_S", 0.01)
    driver = drive(make_peer(good))
    driver.submit([*texts(5), "half a \ud83d surrogate", *texts(5)])
    answers = driver.wait()
    assert [index for index, a in enumerate(answers) if a.output is None] == [5]
    assert "Error" in (answers[5].error or "")


def test_an_address_that_is_none_is_named_with_what_is_expected(drive: DriverFactory) -> None:
    driver = drive("worker-without-port", "no-such-host.invalid:50051")
    soon(lambda: ".invalid:50051 (" in driver.client.waiting_for(), "both addresses are named")
    missing = driver.client.waiting_for()
    assert "worker-without-port (expected host:port in REVIEWMESH_WORKERS__NER)" in missing


def test_what_is_withdrawn_while_nobody_serves_is_let_go(drive: DriverFactory) -> None:
    driver = drive(f"127.0.0.1:{free_port()}")
    for _ in range(3):
        driver.submit(texts(100), token="gone")
        driver.submit(["stays"], token="stays")
        driver.client.cancel(lambda token: token == "gone")
    soon(
        lambda: (
            REGISTRY.get_sample_value("reviewmesh_inference_waiting_items", {"task": TASK}) == 3
        ),
        "only what was kept is in line",
    )


def test_a_closed_client_takes_calls_and_does_nothing(drive: DriverFactory) -> None:
    driver = drive(f"127.0.0.1:{free_port()}")
    driver.client.close()
    driver.client.submit([])
    driver.client.cancel(lambda token: True)
    driver.client.close()
    assert driver.client.completed() == []
