"""`python -m bench.rollouts.shadow`: what a candidate that hangs costs live reviews in shadow.

Reviews at a fixed rate through the mesh's own client to a real worker, in windows that alternate:
without a rollout, and with every review copied to a candidate that answers none. Two minutes;
writes build/reports/rollouts_shadow.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.report import FOLDER, machine
from reviewmesh.enrich.rollouts import SHADOW
from tests.inference import ScriptedWorker, soon
from tests.rolled import Rolled

FILE = FOLDER / "rollouts_shadow.json"
WINDOWS = 10
WINDOW_S = 12.0
EVERY_S = 0.01
POLL_S = 0.001
STARTED_WITHIN_S = 120


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        primary = ScriptedWorker(Path(folder) / "primary")
        candidate = ScriptedWorker(Path(folder) / "candidate")
        for worker in (primary, candidate):
            worker.process.start()
        try:
            for worker in (primary, candidate):
                soon(worker.process.is_ready, "the workers serve", STARTED_WITHIN_S)
            primary.script(delay_ms=20)
            candidate.script(held=["Text"])
            windows = measured(primary.address, candidate.address)
        finally:
            primary.stop()
            candidate.stop()
    p95 = {
        name: [round(quantile(sorted(times)), 1) for times in windows[kind]]
        for name, kind in (("without", False), ("shadow", True))
    }
    for name, of_windows in p95.items():
        print(f"{name:<8} p95 by window, ms: {of_windows}, median {median(of_windows)}")
    print(f"times {median(p95['shadow']) / median(p95['without']):.3f}")
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps({"machine": machine(), "p95_ms": p95}, indent=2) + "\n")


def measured(primary: str, candidate: str) -> dict[bool, list[list[float]]]:
    """Milliseconds from submission to the answer, by whether the window was one in shadow."""
    windows: dict[bool, list[list[float]]] = {False: [], True: []}
    driver = Rolled(primary, candidate)
    try:
        soon(driver.is_known, "the candidate serves", STARTED_WITHIN_S)
        for number in range(WINDOWS + 1):
            in_shadow = number % 2 == 1
            driver.rollouts.rollout = None
            if in_shadow:
                driver.rollouts.begin(SHADOW)
            times = window(driver)
            # The first one warms up.
            if number:
                windows[in_shadow].append(times)
        assert not driver.sent.answers, "the candidate answered"
    finally:
        driver.client.close()
    return windows


def window(driver: Rolled) -> list[float]:
    began = time.monotonic()
    first, due = driver.submitted, began
    submitted: dict[int, float] = {}
    times: list[float] = []
    while (now := time.monotonic()) - began < WINDOW_S or len(times) < len(submitted):
        if now >= due and now - began < WINDOW_S:
            # From when it was due: a client that is held up does not hide it.
            submitted[driver.submitted] = due
            due += EVERY_S
            driver.submit([f"Text {driver.submitted}"])
        for item, _ in driver.client.completed():
            if item.offset >= first:
                times.append((time.monotonic() - submitted[item.offset]) * 1000)
        time.sleep(POLL_S)
    return times


def quantile(ordered: list[float], share: float = 0.95) -> float:
    return ordered[int(share * (len(ordered) - 1))]


if __name__ == "__main__":
    main()
