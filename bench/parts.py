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

from bench.backlog import work_off
from bench.harness import harness
from bench.measure import Effort, measure
from bench.peer_system import Setting, running_peer
from bench.system import MeshSystem, running_mesh
from tests.broker import TestStack

FLOOR_LIMIT_S = 90
INSTANT = Effort(trials=4, confirm_s=20, half_load_s=15, budget_s=140)
LOGNORMAL = Effort(trials=4, confirm_s=15, half_load_s=12, budget_s=110)
ONNX = Effort(trials=3, confirm_s=12, half_load_s=10, budget_s=70)
SLOW_ENGINE = ["bench.engine", "lognormal"]
# With each setting the backlog that it works off: several batches of every replica, or what is
# measured is how long one batch takes.
PEERS = {
    "confluent-kafka": [
        (Setting("plain", 6, ("42", "42"), "batches of 42, all called at once"), 1_000),
        (Setting("plain", 6, ("250", "42"), "batches of 250, 42 calls at once"), 4_500),
        (Setting("plain", 6, ("1000", "42"), "batches of 1,000, 42 calls at once"), 12_000),
    ],
    "quix-streams": [
        (Setting("quix", 3, (), "exactly-once"), 150),
        (Setting("quix", 6, (), "exactly-once"), 350),
    ],
}
WARM_UP = 30


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


def lognormal(bench: Bench) -> None:
    """The mesh with an engine as slow as a large model: median 50 ms, one in a hundred over 2 s."""
    folder = bench.folder / "lognormal"
    with (
        running_mesh(bench.stack, folder, SLOW_ENGINE, workers_per_task=True) as mesh,
        harness(bench.stack, mesh) as measured,
    ):
        found = measure(measured, LOGNORMAL, bench.tell)
    found["engine"] = "lognormal: median 50 ms, p99 2 s; a worker of capacity 256 for each task"
    bench.content["engines"]["lognormal"] = found


def onnx(bench: Bench) -> None:
    """The mesh with the embedded encoder."""
    with (
        running_mesh(bench.stack, bench.folder / "onnx", ["reviewmesh_worker"]) as mesh,
        harness(bench.stack, mesh) as measured,
    ):
        found = measure(measured, ONNX, bench.tell)
    found["engine"] = "the embedded encoder; one worker for all tasks"
    bench.content["engines"]["onnx"] = found


def peers(bench: Bench) -> None:
    """The same topology in other hands, on the same broker, with the same slow workers.

    Their figure is what comes out of a backlog, which is at least what they could hold; the mesh's
    beside it is what it holds.
    """
    for peer, settings in PEERS.items():
        sweep: list[tuple[float, str]] = []
        for number, (setting, backlog) in enumerate(settings):
            folder = bench.folder / f"{peer}-{number}"
            with (
                running_peer(bench.stack, folder, setting, SLOW_ENGINE) as system,
                harness(bench.stack, system) as measured,
            ):
                measured.burst(WARM_UP)
                rate = measured.burst(backlog).middle
            words = f"{setting.replicas} replicas a task, {setting.words}"
            bench.tell(f"{peer}, {words}: {rate:.0f} reviews/s")
            sweep.append((round(rate, 1), words))
            best, best_words = max(sweep)
            bench.content["peers"][peer] = {
                "reviews_per_second": best,
                "setting": best_words,
                "sweep": {words: rate for rate, words in sweep},
            }
        compare(bench, peer)


def compare(bench: Bench, peer: str) -> None:
    """How many times the best setting of the peer the mesh does, with the same engine."""
    ours = bench.content["engines"].get("lognormal", {}).get("reviews_per_second")
    found = bench.content["peers"][peer]
    if ours:
        found["mesh_is_times"] = round(ours / found["reviews_per_second"], 2)
        bench.tell(f"the mesh does {found['mesh_is_times']} times {peer}")


def memory(bench: Bench) -> None:
    """Memory of each process while it works off a backlog that waited for it."""
    with running_mesh(bench.stack, bench.folder / "memory", ["bench.engine", "instant"]) as mesh:
        bench.content["backlog"] = work_off(bench.stack, mesh, bench.tell)


PARTS: dict[str, Callable[[Bench], None]] = {
    "instant": instant,
    "lognormal": lognormal,
    "peers": peers,
    "onnx": onnx,
    "memory": memory,
}
# Memory takes minutes of its own: it is measured where it is named.
DEFAULT = ("instant", "lognormal", "peers", "onnx")
