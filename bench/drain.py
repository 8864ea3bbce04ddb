"""`python -m bench.drain`: how long a burst takes beside what the policy predicts.

A mesh on its own broker, with one worker of the task topic and then with two, each of a known
rate; the other tasks answer at once. A burst is published, and the time until all of it is out is
compared with `drain_s`. Writes build/reports/drain.json. Exit code 1 if predicted and measured
differ by over 15 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine import TimedEngine
from bench.harness import Failed, harness
from bench.report import FOLDER, machine
from bench.system import MeshSystem
from reviewmesh.capacity.drain import drain_s
from reviewmesh_worker.engines.interface import UNBOUND, Bounds, ItemResult
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.serving.settings import Settings
from tests.broker import TestStack, running_stack
from tests.mesh import Mesh, Process, free_port
from tests.scripted_engine import answer
from tests.scripted_worker import serve_engine

FILE = FOLDER / "drain.json"
TASK = "topic"
WORKERS = (1, 2)
RATE_SETTING = "DRAIN_RATE"
WARM_UP = 40
LOOK_S = 0.1
LIMIT_FACTOR = 5
READY_WITHIN_S = 300.0
TOLERANCE = 0.15


class PacedEngine(TimedEngine):
    """Answers one text of TASK after the other, at a rate, and other tasks at once."""

    def __init__(self, rate: float) -> None:
        super().__init__(slow=False)
        self._each_s = 1 / rate
        self._free_at = 0.0

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        if task != TASK:
            return await super().infer(task, texts, lane, bounds)
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time()) + self._each_s * len(texts)
        await asyncio.sleep(self._free_at - loop.time())
        return [ItemResult(answer(task, text)) for text in texts]


class SeveralWorkers(Mesh):
    """A mesh whose TASK has more workers than the one that serves all."""

    more: tuple[str, ...] = ()

    def add(
        self, name: str, slot: str = "0", dies_in_transaction: int = 0, defect: str = ""
    ) -> Process:
        process = super().add(name, slot, dies_in_transaction, defect)
        setting = f"REVIEWMESH_WORKERS__{TASK.upper()}"
        if name not in self.worker_ports:
            ports = [self.worker_ports[worker] for worker in ("worker", *self.more)]
            process.environment[setting] = ",".join(f"127.0.0.1:{port}" for port in ports)
        return process


def measure(stack: TestStack, folder: Path, workers: int, rate: float, reviews: int) -> float:
    """Seconds until the burst is out."""
    system = MeshSystem(stack, folder, ["bench.drain", "--serve"], workers_per_task=False)
    mesh = SeveralWorkers(stack, system.prefix, folder, worker_command=["bench.drain", "--serve"])
    mesh.settings[RATE_SETTING] = str(rate)
    mesh.more = tuple(f"worker-{number}" for number in range(2, workers + 1))
    mesh.worker_ports |= {name: free_port() for name in mesh.more}
    system.mesh = mesh
    with mesh:
        mesh.start(READY_WITHIN_S)
        with harness(stack, system) as measured:
            _await(measured.publish(WARM_UP), WARM_UP, 120)
            began = time.monotonic()
            out = measured.publish(reviews)
            _await(out, reviews, LIMIT_FACTOR * reviews / rate)
            return time.monotonic() - began


def _await(out: Any, count: int, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while (seen := out()) < count:
        if time.monotonic() > deadline:
            raise Failed(f"only {seen} of {count} came out within {within_s:.0f} s")
        time.sleep(LOOK_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.drain")
    parser.add_argument("--rate", type=float, default=40, help="reviews a second of one worker")
    parser.add_argument("--reviews", type=int, default=4_000, help="of the burst")
    parser.add_argument("--serve", action="store_true", help="be a worker; for the bench itself")
    arguments = parser.parse_args()
    if arguments.serve:
        serve_engine(PacedEngine(float(os.environ[RATE_SETTING])), Settings())
        return 0
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="reviewmesh-drain-") as folder,
        running_stack() as stack,
    ):
        for workers in WORKERS:
            took = measure(
                stack, Path(folder) / str(workers), workers, arguments.rate, arguments.reviews
            )
            predicted = drain_s(arguments.reviews, 0, arguments.rate, workers)
            ratio = predicted / took
            found.append({"workers": workers, "predicted_s": predicted, "measured_s": took})
            print(
                f"{arguments.reviews:,} reviews, {workers} of {arguments.rate:g} reviews/s: "
                f"predicted {predicted:.1f} s, measured {took:.1f} s, ratio {ratio:.3f}",
                flush=True,
            )
    FILE.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "reviews": arguments.reviews, "rate": arguments.rate}
    FILE.write_text(json.dumps({**report, "bursts": found}, indent=2) + "\n")
    ratios = [burst["predicted_s"] / burst["measured_s"] for burst in found]
    return 1 if any(abs(ratio - 1) > TOLERANCE for ratio in ratios) else 0


if __name__ == "__main__":
    sys.exit(main())
