"""A package promoted and rolled back under a steady stream of reviews, with the real encoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from reviewmesh_worker.packages.registry import Registry
from tests.broker import TestStack
from tests.mesh import TASKS, Mesh, assert_exactly_once, review
from tests.packages import DEFINED, encoder_copy

EVERY_S = 0.03
BEFORE, AFTER = "minilm-reviews@1", "minilm-reviews@2"
WITHOUT_AN_ANSWER_AT_MOST_MS = 2_000


class Stream:
    """One review after the other at a steady pace, no two of them alike, until it is stopped."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.published: list[dict[str, Any]] = []

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        codec, producer = self._mesh.codec("reviews.raw"), self._mesh.producer()
        began = time.monotonic()
        for number in count():
            if self._ended.wait(max(0.0, began + number * EVERY_S - time.monotonic())):
                break
            item = review(f"r-{number}", f"Anna sold me {number} of these, and all were late.")
            self.published.append(item)
            producer.produce(
                self._mesh.prefix + "reviews.raw",
                key=item["review_id"].encode(),
                value=codec.encode(item),
            )
            producer.poll(0)
        assert producer.flush(30) == 0


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry")
    for version in ("1", "2"):
        registry.add(encoder_copy(tmp_path / version, version).folder, DEFINED)
    promote(registry, BEFORE)
    return registry


@pytest.fixture(params=["beside", "drain"])
def swapping(
    stack: TestStack,
    prefix: str,
    tmp_path: Path,
    registry: Registry,
    request: pytest.FixtureRequest,
) -> Iterator[Mesh]:
    settings = {
        "REVIEWMESH_WORKER__MODEL_REGISTRY": str(registry.folder),
        "REVIEWMESH_WORKER__SWAP": request.param,
    }
    mesh = Mesh(stack, prefix, tmp_path, settings, worker_command=["reviewmesh_worker"])
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.stop()


def promote(registry: Registry, id: str) -> None:
    registry.promote(id, DEFINED, lambda candidate, serving, tasks: [])


def versions(record: dict[str, Any]) -> set[str]:
    return {record["tasks"][task]["lineage"]["model_version"] for task in TASKS}


def wait_for_more(mesh: Mesh, version: str, wanted: int = 100) -> None:
    """Until so many more reviews were answered by that version alone."""

    def answered() -> int:
        return sum(versions(record) == {version} for record in mesh.enriched())

    before = answered()
    mesh.wait_for(lambda: answered() >= before + wanted, 60, f"version {version} answers")


def longest_gap_ms(records: list[dict[str, Any]], task: str) -> float:
    times = sorted(record["timings"][f"{task}_at"] for record in records)
    return float(max(after - before for before, after in pairwise(times)))


def test_a_promotion_and_a_rollback_under_load_fail_lose_and_repeat_nothing(
    swapping: Mesh, registry: Registry, request: pytest.FixtureRequest
) -> None:
    mesh, mode = swapping, request.node.callspec.params["swapping"]
    with Stream(mesh) as stream:
        wait_for_more(mesh, "1")
        promote(registry, AFTER)
        wait_for_more(mesh, "2")
        registry.rollback(AFTER, DEFINED)
        wait_for_more(mesh, "1")
    enriched = mesh.wait_enriched(len(stream.published))
    assert_exactly_once(stream.published, enriched)
    assert mesh.dead_letters() == []
    digests = {id.split("@")[1]: registry.package(id).digest for id in (BEFORE, AFTER)}
    for record in enriched:
        for task in TASKS:
            answer = record["tasks"][task]
            assert (answer["status"], answer["lineage"]["attempts"]) == ("OK", 1)
            assert answer["lineage"]["model_digest"] == digests[answer["lineage"]["model_version"]]
    metrics = mesh.processes["worker"].get("/metrics")[1]
    outcome = {"beside": "beside", "drain": "drained"}[mode]
    assert f'reviewmesh_worker_swaps_total{{outcome="{outcome}"}} 2.0' in metrics
    gaps = {task: longest_gap_ms(enriched, task) for task in TASKS}
    print(f"{mode}: {len(enriched)} reviews, longest time without an answer in ms: {gaps}")
    if mode == "beside":
        assert 'reviewmesh_worker_refused_total{code="UNAVAILABLE"}' not in metrics
        assert max(gaps.values()) < WITHOUT_AN_ANSWER_AT_MOST_MS
