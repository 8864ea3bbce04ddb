"""What is away is waited for: workers, a task beyond max_wait, the registry, the broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import TestStack
from tests.mesh import SERVICES, Mesh, assert_exactly_once, reviews

MAX_WAIT_S = 5


@pytest.fixture
def impatient(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    """A mesh with a pool of its own per task and a `max_wait` of seconds."""
    settings = {"REVIEWMESH_JOIN__MAX_WAIT_S": str(MAX_WAIT_S)}
    with Mesh(breakable_stack, prefix, tmp_path, settings, workers_per_task=True) as mesh:
        mesh.start()
        yield mesh


def test_a_dead_task_times_out_and_completes_as_a_higher_revision(impatient: Mesh) -> None:
    mesh = impatient
    mesh.processes["worker-topic"].kill()
    published = reviews(300)
    mesh.publish(published)
    partial = mesh.wait_enriched(300, 60)
    assert len(partial) == 300
    assert {record["tasks"]["topic"]["status"] for record in partial} == {"TIMEOUT"}
    assert {record["tasks"]["ner"]["status"] for record in partial} == {"OK"}
    first = {record["review_id"]: record["revision"] for record in partial}
    mesh.processes["joiner"].kill()
    mesh.processes["joiner"].start()
    mesh.processes["worker-topic"].start()
    everything = mesh.wait_enriched(600, 60)
    second = [r for r in everything if r["revision"] > first[r["review_id"]]]
    assert_exactly_once(published, second)
    assert len(everything) == 600
    assert mesh.dead_letters() == []


@pytest.fixture
def patient(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    with Mesh(breakable_stack, prefix, tmp_path, workers_per_task=True) as mesh:
        mesh.start()
        yield mesh


@pytest.mark.nightly
def test_a_minute_without_workers_of_one_task_loses_nothing(patient: Mesh) -> None:
    mesh = patient
    mesh.processes["worker-sentiment"].kill()
    died = time.monotonic()
    published = reviews(2_000)
    mesh.publish(published)
    mesh.wait_for(lambda: len(mesh.read("reviews.ner")) == 2_000, 60, "the other tasks go on")
    mesh.wait_for(lambda: time.monotonic() - died > 60, 90, "a minute without workers")
    assert mesh.enriched() == []
    mesh.processes["worker-sentiment"].start()
    assert_exactly_once(published, mesh.wait_enriched(2_000))
    assert mesh.dead_letters() == []


def test_a_registry_that_goes_away_is_waited_for(patient: Mesh) -> None:
    mesh = patient
    first = reviews(50, tag="before-")
    mesh.publish(first)
    assert_exactly_once(first, mesh.wait_enriched(50))
    value = mesh.codec("reviews.raw").encode({**first[0], "review_id": "during", "text": "Wait"})
    mesh.stack.stop("registry")
    try:
        intake = mesh.processes["intake"]
        intake.kill()
        intake.start()
        mesh.publish_raw(value)
        mesh.wait_for(
            lambda: "schema registry" in intake.get("/readyz")[1], 30, "health names the registry"
        )
        assert "schema registry" in intake.log.read_text()
    finally:
        mesh.stack.start("registry")
    enriched = mesh.wait_enriched(51)
    assert [record["text"] for record in enriched if record["review_id"] == "during"] == ["Wait"]
    assert mesh.dead_letters() == []


def test_a_broker_that_goes_away_is_waited_for(patient: Mesh) -> None:
    mesh = patient
    first = reviews(50, tag="before-")
    mesh.publish(first)
    assert_exactly_once(first, mesh.wait_enriched(50))
    services = [mesh.processes[name] for name in SERVICES]
    mesh.stack.stop("broker")
    try:
        address = mesh.stack.bootstrap_servers
        mesh.wait_for(
            lambda: all(f"the broker at {address}" in s.get("/readyz")[1] for s in services),
            60,
            "every service names the broker",
        )
        assert all(service.get("/healthz")[0] == 200 for service in services)
    finally:
        mesh.stack.start("broker")
    mesh.wait_for(lambda: all(s.is_ready() for s in services), 60, "every service is ready again")
    second = reviews(50, tag="after-")
    mesh.publish(second)
    assert_exactly_once(first + second, mesh.wait_enriched(100))
    assert all("waiting for the broker" in service.log.read_text() for service in services)
