"""A package for another version of the topics, promoted and rolled back under a steady stream of
reviews, with the real encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reviewmesh_schemas.names import TASKS
from reviewmesh_worker.packages.registry import Registry
from tests.broker import TestStack
from tests.mesh import Mesh, assert_exactly_once
from tests.packages import DEFINED, another_version, encoder_copy, promote
from tests.stream import Stream, longest_gap_ms

EVERY_S = 0.03
MORE = 100
BEFORE, AFTER = "e5-reviews@1", "e5-reviews@2"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry")
    registry.add(encoder_copy(tmp_path / "1", "1").folder, DEFINED)
    made_for = DEFINED | {"topic": another_version(tmp_path / "tasks", "topic")}
    registry.add(encoder_copy(tmp_path / "2", "2", made_for, carries=True).folder, DEFINED)
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
    with Mesh(stack, prefix, tmp_path, settings, worker_command=["reviewmesh_worker"]) as mesh:
        mesh.start()
        yield mesh


def test_a_promotion_and_a_rollback_under_load_fail_lose_and_repeat_nothing(
    swapping: Mesh, registry: Registry, request: pytest.FixtureRequest
) -> None:
    mesh, mode = swapping, request.node.callspec.params["swapping"]
    with Stream(mesh, EVERY_S) as stream:
        stream.wait_for_more("1", MORE)
        promote(registry, AFTER)
        stream.wait_for_more("2", MORE)
        registry.rollback(AFTER, DEFINED)
        stream.wait_for_more("1", MORE)
    enriched = stream.wait_enriched()
    assert_exactly_once(stream.published, enriched)
    assert mesh.dead_letters() == []
    packages = {id.split("@")[1]: registry.package(id) for id in (BEFORE, AFTER)}
    for record in enriched:
        for task in TASKS:
            answer = record["tasks"][task]
            assert (answer["status"], answer["lineage"]["attempts"]) == ("OK", 1)
            package = packages[answer["lineage"]["model_version"]]
            assert answer["lineage"]["model_digest"] == package.digest
            assert answer["lineage"]["prompt_version"] == package.manifest.tasks[task].version
    metrics = mesh.processes["worker"].get("/metrics")[1]
    outcome = {"beside": "beside", "drain": "drained"}[mode]
    assert f'reviewmesh_worker_swaps_total{{outcome="{outcome}"}} 2.0' in metrics
    gaps = {task: longest_gap_ms(enriched, task) for task in TASKS}
    print(f"{mode}: {len(enriched)} reviews, longest time without an answer in ms: {gaps}")
    if mode == "beside":
        assert 'reviewmesh_worker_refused_total{code="UNAVAILABLE"} 0.0' in metrics
