"""The whole mesh on real vLLM: names and topics by pooling, sentiment by generation, one worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from reviewmesh_protos.inference.v1 import inference_pb2_grpc
from reviewmesh_schemas.names import TASKS
from reviewmesh_worker.packages.registry import Registry
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from tests.broker import TestStack
from tests.inference import infer
from tests.mesh import ENRICHERS, Mesh, Process, assert_exactly_once, review, reviews
from tests.packages import DEFINED, encoder_copy, promote
from tests.stream import Stream, longest_gap_ms
from tests.vllm.conftest import write_tiny_gemma
from tests.vllm.worker import LOADING_S, vllm_processes

ENCODER, LATER_ENCODER = "e5-reviews@1", "e5-reviews@2"
CHAT, BABBLE = "tiny-gemma-2@1", "tiny-gemma-2@babble"
EVERY_S = 0.1
MORE = 30
ADMITTED = 64
OUT_WITHIN_S = 120


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """An encoder for two tasks in two versions, and chat models of random weights for the others:
    one for sentiment, where any word is an answer, one for names, where most of it is nonsense."""
    folder = tmp_path_factory.mktemp("models")
    registry = Registry(folder / "registry")
    pooled = {name: DEFINED[name] for name in (NER, TOPIC)}
    for version in ("1", "2"):
        package = encoder_copy(folder / f"encoder-{version}", version, pooled)
        registry.add(package.folder, DEFINED)
    for version, task in (("1", SENTIMENT), ("babble", NER)):
        own = folder / f"chat-{version}"
        write_tiny_gemma(own, {task: DEFINED[task]}, version)
        registry.add(own, DEFINED)
    promote(registry, ENCODER)
    promote(registry, CHAT)
    return registry


@pytest.fixture(scope="module")
def mesh(
    stack: TestStack, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    """Every test leaves it as it found it."""
    settings = {
        "REVIEWMESH_WORKER__MODEL_REGISTRY": str(registry.folder),
        "REVIEWMESH_WORKER__ENGINE": "vllm",
        "REVIEWMESH_WORKER__MAX_IN_FLIGHT": str(ADMITTED),
    }
    folder = tmp_path_factory.mktemp("mesh")
    with Mesh(stack, "vllm.", folder, settings, worker_command=["reviewmesh_worker"]) as mesh:
        mesh.start(LOADING_S)
        yield mesh


def distinct(count: int, tag: str) -> list[dict[str, Any]]:
    """No text like another: what a worker has answered it remembers."""
    return [
        review(f"{tag}-{number}", f"For {tag} Anna sold me {number} of these, and all were late.")
        for number in range(count)
    ]


def worker_of(mesh: Mesh) -> Process:
    return mesh.processes["worker"]


def engine_works(mesh: Mesh) -> bool:
    return (
        worker_of(mesh).metric("vllm:num_requests_running")
        + worker_of(mesh).metric("vllm:num_requests_waiting")
        > 0
    )


def enriched_of(mesh: Mesh, tag: str) -> list[dict[str, Any]]:
    return [r for r in mesh.enriched() if r["review_id"].startswith(f"{tag}-")]


def wait_enriched(mesh: Mesh, tag: str, count: int) -> list[dict[str, Any]]:
    mesh.wait_for(lambda: len(enriched_of(mesh, tag)) >= count, OUT_WITHIN_S, f"{count} of {tag}")
    return enriched_of(mesh, tag)


def test_every_review_is_enriched_by_both_kinds_of_models(mesh: Mesh, registry: Registry) -> None:
    published = reviews(40, 2, "enrich")
    mesh.publish(published)
    enriched = wait_enriched(mesh, "enrich", len(published))
    assert_exactly_once(published, enriched)
    for record in enriched:
        for task in TASKS:
            package = registry.package(CHAT if task == SENTIMENT else ENCODER)
            lineage = record["tasks"][task]["lineage"]
            assert (lineage["engine"], lineage["model_digest"]) == ("vllm", package.digest)
        assert record["sentiment"]["label"] in DEFINED[SENTIMENT].label_ids


def test_a_flood_from_elsewhere_is_refused_with_a_hint_and_the_mesh_goes_on(mesh: Mesh) -> None:
    before = worker_of(mesh).metric('reviewmesh_worker_refused_total{code="RESOURCE_EXHAUSTED"}')
    published = distinct(150, "flood")
    with flood(mesh) as hints:
        mesh.publish(published)
        mesh.wait_for(
            lambda: bool(hints) and len(enriched_of(mesh, "flood")) > 0, 60, "a refusal, and output"
        )
    assert_exactly_once(published, wait_enriched(mesh, "flood", len(published)))
    assert all(hint > 0 for hint in hints)
    after = worker_of(mesh).metric('reviewmesh_worker_refused_total{code="RESOURCE_EXHAUSTED"}')
    assert after - before >= len(hints)


@contextmanager
def flood(mesh: Mesh) -> Iterator[list[int]]:
    """Somebody who fills the worker's places over and over; gives the hints of its refusals, ms."""
    hints: list[int] = []
    ended = threading.Event()
    address = f"127.0.0.1:{mesh.worker_ports['worker']}"

    def fill(number: int) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            for turn in range(1_000):
                if ended.is_set():
                    return
                texts = [f"Flood {number}, {turn}, {at}" for at in range(ADMITTED // 2)]
                try:
                    stub.Infer(infer(texts, SENTIMENT), timeout=60)
                except grpc.RpcError as refused:
                    error: Any = refused
                    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                    hints.append(int(dict(error.trailing_metadata())["retry-after-ms"]))
                    ended.wait(min(hints[-1], 1_000) / 1_000)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield hints
    finally:
        ended.set()
        for thread in threads:
            thread.join(90)


def test_work_of_killed_enrichers_is_cancelled_in_the_engine_and_done_once(mesh: Mesh) -> None:
    published = distinct(600, "cancel")
    mesh.publish(published)
    mesh.wait_for(lambda: len(enriched_of(mesh, "cancel")) > 20, 60, "output flows")
    for name in ENRICHERS:
        mesh.processes[name].kill()
    # What was admitted and is not cancelled would keep the engine busy until it is done.
    mesh.wait_for(lambda: not engine_works(mesh), 20, "the engine works for nobody")
    assert len(enriched_of(mesh, "cancel")) < len(published)
    for name in ENRICHERS:
        mesh.processes[name].start()
    assert_exactly_once(published, wait_enriched(mesh, "cancel", len(published)))


def test_a_promotion_and_a_rollback_under_load_fail_lose_and_repeat_nothing(
    mesh: Mesh, registry: Registry
) -> None:
    pooled = (NER, TOPIC)
    refused = worker_of(mesh).metric('reviewmesh_worker_refused_total{code="UNAVAILABLE"}')
    with Stream(mesh, EVERY_S, "swap") as stream:
        stream.wait_for_more("1", MORE, pooled)
        promote(registry, LATER_ENCODER)
        stream.wait_for_more("2", MORE, pooled, LOADING_S)
        registry.rollback(LATER_ENCODER, DEFINED)
        stream.wait_for_more("1", MORE, pooled, LOADING_S)
    enriched = stream.wait_enriched(OUT_WITHIN_S)
    assert_exactly_once(stream.published, enriched)
    digests = {id.split("@")[1]: registry.package(id).digest for id in (ENCODER, LATER_ENCODER)}
    for record in enriched:
        for task in pooled:
            answer = record["tasks"][task]
            assert (answer["status"], answer["lineage"]["attempts"]) == ("OK", 1)
            assert answer["lineage"]["model_digest"] == digests[answer["lineage"]["model_version"]]
    gaps = {task: longest_gap_ms(enriched, task) for task in TASKS}
    print(f"{len(enriched)} reviews, longest time without an answer in ms: {gaps}")
    assert worker_of(mesh).metric('reviewmesh_worker_refused_total{code="UNAVAILABLE"}') == refused


def test_an_engine_that_is_killed_loses_and_repeats_no_review(mesh: Mesh) -> None:
    worker = worker_of(mesh)
    with Stream(mesh, EVERY_S, "killed") as stream:
        mesh.wait_for(lambda: len(stream.enriched()) > MORE, 60, "output flows")
        for process in vllm_processes(worker):
            process.kill()
        assert worker.wait() == 1
        worker.start()
        before = len(stream.enriched())
        mesh.wait_for(
            lambda: len(stream.enriched()) > before + MORE, LOADING_S, "output flows again"
        )
    assert_exactly_once(stream.published, stream.wait_enriched(OUT_WITHIN_S))


def test_a_model_that_answers_nonsense_fails_its_task_alone_and_is_taken_back(
    mesh: Mesh, registry: Registry
) -> None:
    promote(registry, BABBLE)
    mesh.wait_for(
        lambda: worker_of(mesh).metric('reviewmesh_worker_swaps_total{outcome="beside"}') > 0,
        LOADING_S,
        "the model that babbles serves",
    )
    published = distinct(4, "babble")
    mesh.publish(published)
    enriched = wait_enriched(mesh, "babble", len(published))
    registry.rollback(BABBLE, DEFINED)
    failed = [record for record in enriched if record["tasks"][NER]["status"] == "FAILED"]
    # One review may by chance end in a list that holds no name.
    assert failed
    for record in enriched:
        assert record["complete"] == (record not in failed)
        for task in (TOPIC, SENTIMENT):
            assert record["tasks"][task]["status"] == "OK"
    for record in failed:
        assert "INVALID_ANSWER" in record["tasks"][NER]["error"]
        assert record["tasks"][NER]["lineage"]["completion_tokens"] > 0
    letters = mesh.dead_letters()
    assert {letter["review_id"] for letter in letters} == {r["review_id"] for r in failed}
    for letter in letters:
        assert (letter["stage"], letter["cause"]) == ("enrich.ner", "FAILED")
        assert "INVALID_ANSWER" in letter["message"]
    with Stream(mesh, EVERY_S, "after") as stream:
        stream.wait_for_more("1", MORE, (NER,), LOADING_S)
    stream.wait_enriched(OUT_WITHIN_S)
