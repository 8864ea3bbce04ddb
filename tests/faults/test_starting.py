"""Services that start before the broker or the registry say so, and go on once it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from reviewmesh.avro.codec import load_schema
from reviewmesh.process.logs import REPEAT_AFTER_S, lasting
from tests.broker import TestStack
from tests.mesh import SCHEMAS, SERVICES, Mesh, assert_exactly_once, review, reviews

SAID_WITHIN_S = 60
READY_WITHIN_S = 60
# A line's timestamp is of another clock, and is taken a moment before the throttle looks.
CLOCKS_DIFFER_S = 1


@pytest.fixture
def mesh(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    """Topics are applied; of the processes only the worker runs."""
    with Mesh(breakable_stack, prefix, tmp_path) as mesh:
        mesh.apply_topics()
        mesh.add("worker").start()
        yield mesh


@contextmanager
def away(stack: TestStack, name: str) -> Iterator[None]:
    stack.stop(name)
    try:
        yield
    finally:
        stack.start(name)


def start_services(mesh: Mesh) -> None:
    for name in SERVICES:
        mesh.add(name).start()


def wait_until_all_say(mesh: Mesh, words: str) -> None:
    """Readiness and the log name it; liveness holds, so that nobody restarts what only waits."""

    def says(name: str) -> bool:
        status, body = mesh.processes[name].get("/readyz")
        return status == 503 and words in json.loads(body)["waiting_for"] and bool(told(name))

    def told(name: str) -> list[str]:
        lines = mesh.processes[name].log.read_text().splitlines()
        return [line for line in lines if words in json.loads(line).get("waiting_for", "")]

    mesh.wait_for(
        lambda: all(says(name) for name in SERVICES), SAID_WITHIN_S, f"all say that {words!r}"
    )
    for name in SERVICES:
        assert mesh.processes[name].get("/healthz")[0] == 200
        # It asks every second and says each reason once.
        assert len(told(name)) <= 2


def test_a_broker_that_is_down_at_start_is_waited_for(mesh: Mesh) -> None:
    with away(mesh.stack, "broker"):
        start_services(mesh)
        wait_until_all_say(mesh, f"the broker at {mesh.stack.bootstrap_servers} does not answer")
    mesh.wait_ready(READY_WITHIN_S)
    published = [review("r-1", "The broker came late, said Anna.")]
    mesh.publish(published)
    assert_exactly_once(published, mesh.wait_enriched(1))


def test_a_registry_that_is_down_at_start_is_waited_for_and_keeps_its_ids(mesh: Mesh) -> None:
    before = reviews(3, tag="before-")
    mesh.publish(before)
    ids = schema_ids(mesh)
    with away(mesh.stack, "registry"):
        start_services(mesh)
        wait_until_all_say(mesh, f"the schema registry at {mesh.stack.registry_url} does not")
    mesh.wait_ready(READY_WITHIN_S)
    after = reviews(3, tag="after-")
    # A client that is new to the registry gets the same ids and resolves those of before.
    anew = Mesh(mesh.stack, mesh.prefix, mesh.folder)
    anew.publish(after)
    assert_exactly_once([*before, *after], anew.wait_enriched(6))
    assert schema_ids(anew) == ids
    assert anew.dead_letters() == []


def schema_ids(mesh: Mesh) -> list[int]:
    return [
        mesh.registry.id_of(f"{mesh.prefix}{topic}-value", load_schema(schema))
        for topic, schema in SCHEMAS.items()
    ]


def test_a_broker_that_goes_away_is_told_seldom_and_in_the_log_only(mesh: Mesh) -> None:
    """librdkafka tries again many times a second; none of it is written past the log."""
    joiner = mesh.add("joiner")
    joiner.start()
    mesh.wait_ready(READY_WITHIN_S)
    with away(mesh.stack, "broker"):
        mesh.wait_for(lambda: "refused" in joiner.log.read_text(), 30, "the joiner notices")
        asked = time.monotonic()
        mesh.wait_for(lambda: time.monotonic() - asked > 5, 10, "five seconds without a broker")
    lines = [json.loads(line) for line in joiner.log.read_text().splitlines()]
    said = [line for line in lines if line["event"] == "kafka"]
    assert {line["level"] for line in said} <= {"info", "warning"}
    told_at: dict[str, datetime] = {}
    for line in said:
        error, at = lasting(line["error"]), datetime.fromisoformat(line["timestamp"])
        if error in told_at:
            since = at - told_at[error]
            assert since.total_seconds() >= REPEAT_AFTER_S - CLOCKS_DIFFER_S, error
        told_at[error] = at
