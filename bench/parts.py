"""The parts of a benchmark run: each builds what it measures, measures it and ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import harness
from bench.measure import Effort, measure
from bench.system import MeshSystem, running_mesh
from tests.broker import TestStack

FLOOR_LIMIT_S = 90
INSTANT = Effort(trials=5, confirm_s=25, half_load_s=20)


@dataclass(frozen=True)
class Bench:
    """What every part needs; `content` is the report's, to be filled in."""

    stack: TestStack
    folder: Path
    content: dict[str, Any]
    tell: Callable[[str], None]


def instant(bench: Bench) -> None:
    """The mesh with an engine that answers at once: its own speed and cost; and the floor."""
    with running_mesh(bench.stack, bench.folder / "instant", ["bench.engine", "instant"]) as mesh:
        with harness(bench.stack, mesh) as measured:
            found = measure(measured, INSTANT, bench.tell)
        found["engine"] = "answers at once; one worker for all tasks"
        content = bench.content
        content["engines"]["instant"] = found
        content["reviews_per_second"] = found["reviews_per_second"]
        content["cpu_seconds_per_1000_reviews"] = found["cpu_seconds_per_1000_reviews"]
        content["latency_ms"] = found["latency_ms"]
        content["memory_mb"] = found["memory_mb"]
        _floor(bench, mesh)


def _floor(bench: Bench, mesh: MeshSystem) -> None:
    """CPU of codec and client calls alone, and how far above it the mesh is."""
    pids = mesh.pids()
    environment = os.environ | {
        "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": bench.stack.bootstrap_servers,
        "REVIEWMESH_REGISTRY__URL": bench.stack.registry_url,
    }
    worker = f"127.0.0.1:{mesh.mesh.worker_ports['worker']}"
    arguments = [mesh.prefix, worker, str(bench.stack.pid("broker")), str(pids["worker"])]
    done = subprocess.run(
        [sys.executable, "-m", "bench.floor", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=FLOOR_LIMIT_S,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    own = {name: cost for name, cost in found.items() if name not in ("broker", "worker")}
    spent: dict[str, float] = bench.content["cpu_seconds_per_1000_reviews"]
    services = sum(cost for name, cost in spent.items() if name in pids and name != "worker")
    bench.content["floor_cpu_seconds_per_1000_reviews"] = round(sum(own.values()), 4)
    bench.content["floor"] = {name: round(cost, 4) for name, cost in found.items()}
    bench.content["cpu_over_floor"] = {
        "services": round(services / sum(own.values()), 2),
        "with_broker_and_worker": round(sum(spent.values()) / sum(found.values()), 2),
    }
    bench.tell(
        f"floor {sum(own.values()):.3f} CPU s per 1,000 reviews, services {services:.3f}: "
        f"{services / sum(own.values()):.2f} times"
    )


PARTS: dict[str, Callable[[Bench], None]] = {"instant": instant}
