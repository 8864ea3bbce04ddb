"""A fault in the midst of a stream of reviews, and what must hold after it."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.mesh import Mesh, Process, assert_exactly_once, reviews

REVIEWS = 1_000
VERSIONS = 2
IN_FLIGHT_AT_LEAST = 100
SEEDS = range(int(os.environ.get("REVIEWMESH_FAULT_SEEDS", "1")))
# `make faults` holds the mesh to 20 s. `make test` shares its machine with whatever else runs
# there, and asks only that output goes on.
FLOWS_AGAIN_WITHIN_S = 60 if len(SEEDS) == 1 else 20
ALL_OUT_WITHIN_S = 120
BATCHES_AT_MOST = 20


class Scenario:
    """Two versions each of 1,000 reviews; slow workers keep many in flight when it strikes."""

    def __init__(self, mesh: Mesh, tag: str, seed: int) -> None:
        self.mesh = mesh
        # Going through the reviews of all tests before would take longer with each of them.
        mesh.forget_enriched()
        self.random = random.Random(seed)
        self._tag = tag
        self.published: list[dict[str, Any]] = []

    def enriched(self) -> list[dict[str, Any]]:
        return [r for r in self.mesh.enriched() if r["review_id"].startswith(f"{self._tag}/")]

    @contextmanager
    def strike(self) -> Iterator[None]:
        """Publish, wait until output flows, run the fault with enough in flight, then check."""
        # Slow enough that enough is left where this process is late, on a busy machine.
        self.mesh.script(delay_ms=120)
        self.published = reviews(REVIEWS, VERSIONS, f"{self._tag}/")
        self.mesh.publish(self.published)
        wanted = self.random.randrange(50, 400)
        self.mesh.wait_for(
            lambda: len(self.enriched()) >= wanted, 60, f"{wanted} reviews enriched before"
        )
        self.assert_many_in_flight()
        yield
        self.check()

    def assert_many_in_flight(self) -> None:
        in_flight = len(self.published) - len(self.enriched())
        assert in_flight >= IN_FLIGHT_AT_LEAST, f"only {in_flight} in flight when it strikes"

    def publish_more(self, count: int, tag: str) -> None:
        more = reviews(count, 1, f"{self._tag}/{tag}")
        self.mesh.publish(more)
        self.published += more

    def publish_until_it_ends(self, process: Process) -> None:
        """More reviews, a few at a time, until a process has had the work that it dies of."""
        for batch in range(BATCHES_AT_MOST):
            self.publish_more(150, f"more-{batch}")
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                return
        raise AssertionError(f"{process.name} outlived {BATCHES_AT_MOST} batches")

    def check(self) -> None:
        before = len(self.enriched())
        self.mesh.script()
        mended = time.monotonic()
        if before < len(self.published):
            self.mesh.wait_for(
                lambda: len(self.enriched()) > before, FLOWS_AGAIN_WITHIN_S, "output flows again"
            )
        print(f"{self._tag}: output flowed again after {time.monotonic() - mended:.1f} s")
        self.mesh.wait_for(
            lambda: len(self.enriched()) >= len(self.published),
            ALL_OUT_WITHIN_S,
            f"all {len(self.published)} reviews enriched",
        )
        self.mesh.wait_for(self.is_caught_up, 30, "every service caught up")
        assert_exactly_once(self.published, self.enriched())
        assert self.mesh.dead_letters() == []

    def is_caught_up(self) -> bool:
        """Nothing is in flight in any service, so nothing more can come out."""
        for process in self.mesh.processes.values():
            status, text = process.get("/metrics")
            if status != 200:
                return False
            for line in text.splitlines():
                if line.startswith("reviewmesh_in_flight_records{") and not line.endswith(" 0.0"):
                    return False
        return True
