"""`python -m bench.reprocess`: answers done again beside live reviews at half load.

Live reviews flow at half the rate that holds, in windows that alternate: without a campaign, and
with one after the other that does the topics of 20,000 reviews again. Tells how late live reviews
are (p95) in both, and how long each campaign takes beside what the spare capacity predicts. Then
checks every review: each campaign once, as a higher revision, the other tasks' answers as they
were. Half an hour; writes build/reports/reprocess.json. Exit code 1 when something is lost,
repeated or changed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness import Harness, Trial, harness
from bench.report import FOLDER, machine
from bench.system import MeshSystem, running_mesh
from reviewmesh.query import campaigns
from reviewmesh.query.connection import Connection, connection_of
from reviewmesh.settings import Settings
from tests.broker import running_stack

FILE = FOLDER / "reprocess.json"
TASK = "topic"
SEARCH_WINDOW_S, SEARCH_LIMIT_S, SEARCH_TRIALS, SEARCH_S = 8.0, 16.0, 6, 150.0
LIMIT_FACTOR = 1.5
ASK_EVERY_S = 2.0
OUT_WITHIN_S = 600.0


@dataclass
class Campaigns:
    """One campaign for the same reviews after the other, in a thread, while it is wanted."""

    connection: Connection
    prefix: str
    """Of the ids of the reviews that are done again."""
    began_ms: int
    took_s: list[float] = field(default_factory=list)
    done: list[campaigns.Status] = field(default_factory=list)

    def run(self, wanted: threading.Event) -> None:
        while wanted.is_set():
            began = time.monotonic()
            chosen = campaigns.choose_reviews(self.connection, TASK, self._is_one)
            campaign = campaigns.begin(self.connection, TASK, "of the benchmark", chosen)
            while not (status := campaigns.status(self.connection, campaign)).is_over:
                time.sleep(ASK_EVERY_S)
            self.took_s.append(time.monotonic() - began)
            self.done.append(status)
            print(
                f"  {status.published:,} answers done again in {self.took_s[-1]:.0f} s", flush=True
            )

    def left(self) -> int:
        """How many of them were last published before the campaigns began."""
        chosen = campaigns.choose_reviews(
            self.connection,
            TASK,
            lambda r: self._is_one(r) and r["timings"]["enriched_at"] < self.began_ms,
        )
        return len(chosen)

    def _is_one(self, record: Any) -> bool:
        return bool(record["review_id"].startswith(self.prefix))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.reprocess")
    parser.add_argument("--reviews", type=int, default=20_000, help="that are done again")
    parser.add_argument("--pairs", type=int, default=3, help="of windows")
    parser.add_argument("--seconds", type=float, default=180, help="of each window")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="reviewmesh-reprocess-") as folder,
        running_stack() as stack,
        running_mesh(stack, Path(folder) / "mesh", ["bench.engine", "lognormal"]) as mesh,
        harness(stack, mesh) as measured,
    ):
        found = measure(mesh, measured, arguments.reviews, arguments.pairs, arguments.seconds)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n")
    return 1 if found["problems"] else 0


def measure(
    mesh: MeshSystem, measured: Harness, reviews: int, pairs: int, seconds: float
) -> dict[str, Any]:
    holds = rate_of(measured)
    out = measured.publish(reviews)
    deadline = time.monotonic() + OUT_WITHIN_S
    while out() < reviews and time.monotonic() < deadline:
        time.sleep(1)
    again = Campaigns(connected(mesh), measured.last_tag, round(time.time() * 1000))
    before = published(mesh, again.prefix)
    windows: dict[str, list[Trial]] = {"without": [], "with": []}
    for _ in range(pairs):
        windows["without"].append(measured.trial(holds / 2, seconds, seconds * LIMIT_FACTOR))
        tell("without", windows["without"][-1])
        wanted = threading.Event()
        wanted.set()
        beside = threading.Thread(target=again.run, args=(wanted,))
        beside.start()
        windows["with"].append(measured.trial(holds / 2, seconds, seconds * LIMIT_FACTOR))
        wanted.clear()
        tell("with", windows["with"][-1])
        beside.join()
    p95 = {
        name: [round(trial.latencies.percentile_ms(0.95)) for trial in trials]
        for name, trials in windows.items()
    }
    predicted_s = reviews / (holds / 2)
    problems = problems_of(before, published(mesh, again.prefix), again)
    result = {
        "reviews_per_second_that_hold": round(holds),
        "live_p95_ms": p95,
        "live_p95_ratio": round(median(p95["with"]) / median(p95["without"]), 3),
        "campaign_s": [round(took, 1) for took in again.took_s],
        "campaign_ratio_to_predicted": round(median(again.took_s) / predicted_s, 2),
        "problems": problems,
    }
    print(json.dumps(result, indent=2))
    return result


def rate_of(measured: Harness) -> float:
    estimate = measured.growing_bursts(print)
    trials = measured.find_rate(
        estimate,
        SEARCH_WINDOW_S,
        SEARCH_LIMIT_S,
        SEARCH_TRIALS,
        time.monotonic() + SEARCH_S,
        print,
    )
    return max((trial.rate for trial in trials if trial.holds), default=estimate / 2)


def connected(mesh: MeshSystem) -> Connection:
    stack = mesh.mesh.stack
    settings: dict[str, Any] = {
        "kafka": {"bootstrap_servers": stack.bootstrap_servers},
        "registry": {"url": stack.registry_url},
        "prefix": mesh.prefix,
    }
    return connection_of(Settings(**settings))


def tell(name: str, trial: Trial) -> None:
    p95 = trial.latencies.percentile_ms(0.95)
    print(f"{name} a campaign: p95 {p95:.0f} ms, {trial.describe()}", flush=True)


def published(mesh: MeshSystem, prefix: str) -> dict[str, list[dict[str, Any]]]:
    """The revisions of each review, without what a campaign may change."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in mesh.mesh.enriched():
        if record["review_id"].startswith(prefix):
            tasks = {task: told for task, told in record["tasks"].items() if task != TASK}
            kept = (record["text"], record["entities"], record["sentiment"], tasks)
            found[record["review_id"]].append({"revision": record["revision"], "kept": kept})
    return found


def problems_of(
    before: dict[str, list[dict[str, Any]]],
    after: dict[str, list[dict[str, Any]]],
    again: Campaigns,
) -> list[str]:
    problems = []
    campaigns_of_each = len(again.done)
    if lost := sum(status.dropped for status in again.done):
        problems.append(f"{lost} answers were dropped")
    for name, (first, *_) in before.items():
        revisions = [record["revision"] for record in after[name]]
        if len(revisions) != 1 + campaigns_of_each or revisions != sorted(set(revisions)):
            problems.append(f"{name} came out {len(revisions)} times: {revisions}")
        if any(record["kept"] != first["kept"] for record in after[name]):
            problems.append(f"{name}: another task's answer was changed")
    if left := again.left():
        problems.append(f"{left} are still to be done")
    return problems[:20]


if __name__ == "__main__":
    raise SystemExit(main())
