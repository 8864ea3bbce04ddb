"""`python -m bench.pair REV`: the working tree against a revision, in alternating pairs.

Both run on one broker, one after the other, the order changing from pair to pair, so that what the
machine does meanwhile falls on both. What a review costs in CPU comes first: it is the steadiest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.pair.interval import ratio
from bench.report import FOLDER, machine
from tests.broker import embedded_stack

ROOT = Path(__file__).parents[2]
FILE = FOLDER / "bench_pair.json"
PACKAGES = ("", "services", "inference-worker", "protos", "schemas")
RUN_LIMIT_S = 300
BEFORE, AFTER = "before", "after"
COSTS = {
    "cpu_s_per_1000": "CPU of services and worker",
    "broker_cpu_s_per_1000": "CPU of the broker",
    "p50_ms": "latency p50",
    "p99_ms": "latency p99",
}


def main() -> int:
    """0 when every trial held its rate, else 1."""
    parser = argparse.ArgumentParser(prog="bench.pair")
    parser.add_argument("revision")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=400, help="reviews a second")
    parser.add_argument("--seconds", type=float, default=15, help="of each trial")
    arguments = parser.parse_args()
    if arguments.pairs < 2:
        parser.error("expected two pairs or more")
    console = Console(highlight=False, soft_wrap=True)
    found: dict[str, list[dict[str, Any]]] = {BEFORE: [], AFTER: []}
    with checked_out(arguments.revision) as tree, embedded_stack() as stack:
        trees = {BEFORE: tree, AFTER: ROOT}
        lent = {"REVIEWMESH_TEST_STACK": str(stack.paths.state_dir)}
        for number in range(arguments.pairs):
            for side in (BEFORE, AFTER) if number % 2 == 0 else (AFTER, BEFORE):
                trial = run(trees[side], lent, arguments.rate, arguments.seconds)
                found[side].append(trial)
                console.print(
                    f"pair {number + 1}, {side}: {trial['cpu_s_per_1000']:.4f} CPU s per 1,000 "
                    f"reviews, p50 {trial['p50_ms']:.0f} ms, {trial['others_cores']:.2f} CPUs busy "
                    "with others"
                )
    ratios = {
        cost: ratio([t[cost] for t in found[BEFORE]], [t[cost] for t in found[AFTER]])
        for cost in COSTS
    }
    for cost, words in COSTS.items():
        console.print(f"{words}: {ratios[cost].words()}")
    by_process = {
        name: ratio(*([t["by_process"][name] for t in found[side]] for side in (BEFORE, AFTER)))
        for name in found[BEFORE][0]["by_process"]
        if name in found[AFTER][0]["by_process"]
    }
    for name, value in by_process.items():
        console.print(f"  CPU of {name}: {value.words()}")
    content = {
        "revision": arguments.revision,
        "rate": arguments.rate,
        "machine": machine(),
        "ratios": {cost: vars(value) for cost, value in (ratios | by_process).items()},
        "trials": found,
    }
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"written to {FILE}")
    return 0 if all(trial["holds"] for side in found.values() for trial in side) else 1


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The revision in a work tree of its own, which is removed when left."""
    tree = ROOT / "build" / "pair"
    git("worktree", "add", "--force", "--detach", str(tree), revision)
    try:
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def run(tree: Path, environment: dict[str, str], rate: float, seconds: float) -> dict[str, Any]:
    """One trial with the packages of that tree. Raises CalledProcessError or TimeoutExpired."""
    path = os.pathsep.join(str(tree / package) for package in PACKAGES)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("once.py")), str(rate), str(seconds)],
        cwd=tree,
        env=os.environ | environment | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        timeout=RUN_LIMIT_S,
        check=True,
    )
    trial: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return trial


if __name__ == "__main__":
    sys.exit(main())
