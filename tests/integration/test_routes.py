"""A mesh whose workers of one task die: the fallback answers, and hands back."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker import TestStack
from tests.inference import ScriptedWorker
from tests.mesh import Mesh, assert_exactly_once, review

AFTER_S = 3.0
WITHIN_S = 5.0
TASK = "topic"
POLICY = """\
all:
  regions: [eu]
  mask: [patterns, names]
businesses:
  acme: nothing
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker(tmp_path / "outside")
    worker.script(heard=str(tmp_path / "heard"))
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def mesh(stack: TestStack, tmp_path: Path, outside: ScriptedWorker) -> Iterator[Mesh]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("all: unlimited\n")
    settings = {
        "REVIEWMESH_FALLBACKS__TOPIC": f"eu@{outside.address}",
        "REVIEWMESH_FALLBACKS__AFTER_S": str(AFTER_S),
        "REVIEWMESH_POLICY": str(policy),
        "REVIEWMESH_BUDGETS": str(budgets),
    }
    prefix = f"r{uuid.uuid4().hex[:8]}."
    with Mesh(stack, prefix, tmp_path, settings, workers_per_task=True) as mesh:
        mesh.script(label="person")
        mesh.start()
        yield mesh


def reviews(tag: str) -> list[dict[str, Any]]:
    """In turns of a business whose reviews may leave, and of one whose may not."""
    return [
        review(
            f"{tag}-{number}",
            f"{business} number {number} came to {tag}, said Anna, mail anna{number}@b.dk",
            business_id=business,
        )
        for number in range(100)
        for business in ("globex" if number % 2 else "acme",)
    ]


def results(mesh: Mesh, route: str) -> list[dict[str, Any]]:
    return [
        result for result in mesh.read(f"reviews.{TASK}") if result["lineage"]["route"] == route
    ]


def test_the_fallback_answers_while_all_workers_of_a_task_are_gone(
    mesh: Mesh, tmp_path: Path
) -> None:
    published = reviews("before")
    mesh.publish(published)
    mesh.wait_enriched(len(published))
    worker = mesh.processes[f"worker-{TASK}"]
    enricher = mesh.processes[f"enricher-{TASK}"]

    worker.kill()
    gone_at = time.time()
    during = reviews("during")
    published += during
    mesh.publish(during)
    mesh.wait_for(lambda: len(results(mesh, "fallback")) == 50, 60, "the fallback's answers")
    first = min(result["produced_at"] / 1000 for result in results(mesh, "fallback"))
    assert first - gone_at <= AFTER_S + WITHIN_S
    held_back = f'reviewmesh_reviews_held_back{{reason="forbidden",task="{TASK}"}}'
    mesh.wait_for(lambda: enricher.metric(held_back) == 50, 20, "the others to be held back")
    status, body = enricher.get("/readyz")
    assert status == 200
    assert "50 reviews are held back: the policy lets nothing of their business leave" in body
    assert "reviews are held back" in enricher.log.read_text()

    worker.start()
    mesh.wait_for(worker.is_ready, 60, "the worker")
    back_at = time.time()
    serving = f'reviewmesh_workers_serving{{task="{TASK}"}}'
    mesh.wait_for(lambda: enricher.metric(serving) == 1, 20, "the enricher to see the worker")
    after = reviews("after")
    published += after
    mesh.publish(after)
    enriched = mesh.wait_enriched(len(published))
    first = min(
        result["produced_at"] / 1000
        for result in results(mesh, "primary")
        if result["review_id"].startswith("during")
    )
    assert first - back_at <= WITHIN_S
    assert_exactly_once(published, enriched)
    assert len(results(mesh, "primary")) + len(results(mesh, "fallback")) == len(published)
    for record in enriched:
        left = record["review_id"].startswith("during") and record["business_id"] == "globex"
        outcome = record["tasks"][TASK]
        assert outcome["status"] == ("FALLBACK" if left else "OK")
        assert outcome["lineage"]["route"] == ("fallback" if left else "primary")
    heard = [json.loads(line) for line in (tmp_path / "heard").read_text().splitlines()]
    expected = {
        f"globex number {number} came to during, said [NAME], mail [EMAIL]"
        for number in range(1, 100, 2)
    }
    assert set(heard) == expected
