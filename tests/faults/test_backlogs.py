"""Faults while far more reviews wait than any limit lets in flight: partitions are paused then."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from confluent_kafka import KafkaException

from tests.faults.scenario import FLOWS_AGAIN_WITHIN_S, SEEDS
from tests.mesh import SERVICES, Mesh, assert_exactly_once, reviews
from tests.nightly import but_nightly

# 1,000 in flight is the enricher's limit for a partition; six partitions share these.
WAITING = 9_000 if len(SEEDS) == 1 else 20_000
ALL_OUT_WITHIN_S = 240


class Backlog:
    """Reviews that wait for a slow worker; what comes out is counted before and after a fault."""

    def __init__(self, mesh: Mesh, tag: str) -> None:
        self.mesh = mesh
        mesh.forget_enriched()
        self._tag = tag
        self.published: list[dict[str, Any]] = []

    def enriched(self) -> list[dict[str, Any]]:
        return [r for r in self.mesh.enriched() if r["review_id"].startswith(f"{self._tag}/")]

    @contextmanager
    def strike(self) -> Iterator[dict[str, int]]:
        """Gives the process ids by name, for who replaces one."""
        self.mesh.script(delay_ms=300)
        self.publish(WAITING)
        self.mesh.wait_for(self.some_partition_is_paused, 60, "a partition is paused")
        pids = self.pids()
        yield pids
        self.mesh.script()
        self.wait_for_more()
        self.mesh.wait_for(
            lambda: len(self.enriched()) >= len(self.published),
            ALL_OUT_WITHIN_S,
            "all reviews enriched",
        )
        assert_exactly_once(self.published, self.enriched())
        assert self.pids() == pids, "a service ended by itself"

    def wait_for_more(self) -> None:
        struck = time.monotonic()
        before = len(self.enriched())
        assert before < len(self.published), "expected a backlog when it strikes"
        self.mesh.wait_for(
            lambda: len(self.enriched()) > before, FLOWS_AGAIN_WITHIN_S, "output goes on"
        )
        print(f"{self._tag}: output went on after {time.monotonic() - struck:.1f} s")

    def publish(self, count: int) -> None:
        more = reviews(count, 1, f"{self._tag}/{len(self.published)}-")
        self.mesh.publish(more)
        self.published += more

    def some_partition_is_paused(self) -> bool:
        paused = "reviewmesh_paused_partitions"
        return any(p.metric(paused) for p in self.mesh.processes.values() if "enricher" in p.name)

    def pids(self) -> dict[str, int]:
        return {
            name: process.popen.pid
            for name, process in self.mesh.processes.items()
            if process.popen is not None and process.popen.poll() is None
        }


@pytest.fixture
def backlog(mesh: Mesh, request: pytest.FixtureRequest, seed: int) -> Backlog:
    return Backlog(mesh, request.node.name)


@pytest.mark.parametrize("name", but_nightly(SERVICES, ["enricher-ner"]))
def test_scale_out_and_in(backlog: Backlog, mesh: Mesh, name: str) -> None:
    with backlog.strike():
        replica = mesh.add(name, slot="1")
        replica.start()
        mesh.wait_for(
            lambda: replica.metric("reviewmesh_assigned_partitions") > 0, 60, "it has partitions"
        )
        assert replica.terminate() == 0
        del mesh.processes[replica.name]


def test_each_service_killed_in_turn(backlog: Backlog, mesh: Mesh) -> None:
    with backlog.strike() as pids:
        for name in SERVICES:
            process = mesh.processes[name]
            process.kill()
            process.start()
            assert process.popen is not None
            pids[name] = process.popen.pid
            backlog.wait_for_more()


def test_a_broker_that_hangs(backlog: Backlog, mesh: Mesh) -> None:
    """Longer than the session and the transactions last: producers are fenced, members put out."""
    with backlog.strike():
        hung = mesh.stack.pid("broker")
        mesh.stack.signal("broker", signal.SIGSTOP)
        stopped = time.monotonic()
        mesh.wait_for(lambda: time.monotonic() - stopped > 14, 20, "14 seconds")
        mesh.stack.signal("broker", signal.SIGCONT)
        mesh.stack.wait_ready("broker")
        assert mesh.stack.pid("broker") == hung


@pytest.mark.parametrize("name", but_nightly(SERVICES, ["joiner"]))
def test_a_fenced_producer(backlog: Backlog, mesh: Mesh, name: str) -> None:
    with backlog.strike():
        other = mesh.producer(**{"transactional.id": f"{mesh.prefix}reviewmesh-{name}-0"})
        # The service may notice at once and fence it in turn, before it is told that it is there.
        with suppress(KafkaException):
            other.init_transactions(30)
        # Intake has accepted all by now: it notices with its next transaction.
        backlog.publish(200)
        process = mesh.processes[name]
        mesh.wait_for(
            lambda: process.metric("reviewmesh_producers_recovered_total") > 0, 30, "it recovers"
        )
