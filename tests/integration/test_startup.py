"""Topics that are missing or of another shape are told, and waited for until they are mended."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.broker import TestStack, wait_until
from tests.mesh import PARTITIONS, Mesh, assert_exactly_once, review

WITHIN_S = 60


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    """Nothing of it runs yet, and it has no topics."""
    with Mesh(stack, prefix, tmp_path) as mesh:
        yield mesh


def admin(mesh: Mesh) -> AdminClient:
    return AdminClient({"bootstrap.servers": mesh.stack.bootstrap_servers})


def create(mesh: Mesh, topic: str, partitions: int) -> None:
    name = mesh.prefix + topic
    client = admin(mesh)
    client.create_topics([NewTopic(name, partitions, 1)])[name].result(10)


def delete(mesh: Mesh, topic: str) -> None:
    name = mesh.prefix + topic
    client = admin(mesh)
    client.delete_topics([name])[name].result(10)
    wait_until(lambda: name not in client.list_topics(timeout=5).topics, 10, f"{name} gone")


def waits_for(mesh: Mesh, service: str, what: str) -> None:
    """Readiness, the log and liveness tell it alike."""
    process = mesh.processes[service]

    def told() -> bool:
        status, body = process.get("/readyz")
        return status == 503 and what in json.loads(body)["waiting_for"]

    def logged() -> bool:
        *lines, _ = process.log.read_text().split("\n")
        return any(what in json.loads(line).get("waiting_for", "") for line in lines)

    mesh.wait_for(told, WITHIN_S, f"{service} waits for {what}")
    assert process.get("/healthz")[0] == 200
    # Another thread writes the log: it may be a moment behind, and in the middle of a line.
    mesh.wait_for(logged, WITHIN_S, f"{service} says in its log that it waits for {what}")


@pytest.mark.parametrize("service", ["intake", "joiner"])
def test_missing_topics_are_named_and_waited_for(mesh: Mesh, service: str) -> None:
    process = mesh.add(service)
    process.start()
    waits_for(mesh, service, "topics missing")
    waiting_for = json.loads(process.get("/readyz")[1])["waiting_for"]
    assert f"{mesh.prefix}reviews.raw" in waiting_for or service == "joiner"
    assert f"{mesh.prefix}reviews.accepted" in waiting_for
    assert "reviewmesh topics apply" in waiting_for
    # An intake needs no results.
    assert (f"{mesh.prefix}reviews.ner" in waiting_for) == (service == "joiner")
    mesh.apply_topics()
    mesh.wait_for(process.is_ready, WITHIN_S, f"{service} ready")


def test_a_topic_with_too_few_partitions_is_waited_for_and_gets_the_missing_ones(
    mesh: Mesh,
) -> None:
    mesh.apply_topics()
    delete(mesh, "reviews.accepted")
    create(mesh, "reviews.accepted", PARTITIONS - 2)
    process = mesh.add("intake")
    process.start()
    waits_for(mesh, "intake", f"{mesh.prefix}reviews.accepted: expected at least {PARTITIONS}")
    mesh.apply_topics()
    mesh.wait_for(process.is_ready, WITHIN_S, "intake ready")
    found = admin(mesh).list_topics(timeout=5).topics[f"{mesh.prefix}reviews.accepted"]
    assert len(found.partitions) == PARTITIONS


@pytest.mark.parametrize("topic", ["reviews.accepted", "reviews.ner", "reviews.enriched"])
def test_partitions_beyond_the_mesh_s_number_are_left_alone(mesh: Mesh, topic: str) -> None:
    mesh.apply_topics()
    delete(mesh, topic)
    create(mesh, topic, PARTITIONS + 2)
    mesh.start()
    published = [review(f"r-{number}", f"Number {number}, said Anna.") for number in range(30)]
    mesh.publish(published)
    assert_exactly_once(published, mesh.wait_enriched(30))


def test_missing_schemas_are_waited_for(mesh: Mesh) -> None:
    for topic in ("reviews.raw", "reviews.accepted", "reviews.dead-letter", "reviews.replayed"):
        create(mesh, topic, PARTITIONS)
    process = mesh.add("intake")
    process.start()
    waits_for(mesh, "intake", f"subject {mesh.prefix}reviews.")
    mesh.apply_topics()
    mesh.wait_for(process.is_ready, WITHIN_S, "intake ready")


def test_a_waiting_service_stops_at_once_when_told(mesh: Mesh) -> None:
    process = mesh.add("enricher-ner")
    process.start()
    waits_for(mesh, "enricher-ner", "topics missing")
    assert process.terminate() == 0
    assert "stopped" in process.log.read_text()


def test_a_port_that_is_taken_is_named(mesh: Mesh) -> None:
    process = mesh.add("intake")
    with socket.create_server(("127.0.0.1", process.http_port)):
        process.start()
        assert process.wait() == 1
    (line,) = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert line["event"].startswith("REVIEWMESH_HTTP__PORT: cannot listen on 127.0.0.1:")
