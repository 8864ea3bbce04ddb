"""`python -m bench.plot REPORT`: draws a report, in the environment that has matplotlib."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PYTHON = Path(".venv-bench/bin/python")
LIMIT_S = 60


def is_installed() -> bool:
    return PYTHON.exists()


def draw(report: Path) -> Path:
    """Draw it in that environment; gives the picture's file."""
    subprocess.run([str(PYTHON), "-m", "bench.plot", str(report)], check=True, timeout=LIMIT_S)
    return report.with_suffix(".png")


def main(file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    if "backlog" in report:
        figure, axes = pyplot.subplots(figsize=(10, 5))
        _memory(axes, report["backlog"])
    else:
        figure, ((upper_left, upper_right), (lower_left, lower_right)) = pyplot.subplots(
            2, 2, figsize=(14, 9)
        )
        _lag(upper_left, report)
        _cpu(upper_right, report)
        _latency(lower_left, report)
        _rates(lower_right, report)
    figure.tight_layout()
    figure.savefig(file.with_suffix(".png"), dpi=110)


def _lag(axes: Any, report: dict[str, Any]) -> None:
    axes.set_title("Lag at a steady load, instant engine")
    found = report["engines"].get("instant", {})
    for rate, series in found.get("lag", {}).items():
        axes.plot(*zip(*series, strict=True), label=f"{rate} reviews/s")
    axes.set_xlabel("seconds")
    axes.set_ylabel("seconds behind")
    if found:
        axes.legend(fontsize=8)


def _cpu(axes: Any, report: dict[str, Any]) -> None:
    axes.set_title("CPU seconds per 1,000 reviews")
    left = 0.0
    for name, seconds in report.get("cpu_seconds_per_1000_reviews", {}).items():
        axes.barh("mesh", seconds, left=left, label=name)
        left += seconds
    left = 0.0
    for name, seconds in report.get("floor", {}).items():
        axes.barh("floor", seconds, left=left, label=f"{name} (floor)")
        left += seconds
    if left:
        axes.legend(fontsize=7, ncols=2)


def _latency(axes: Any, report: dict[str, Any]) -> None:
    axes.set_title("Latency at half of the rate that holds, instant engine")
    found = report.get("latency_ms", {})
    stages = {**found.get("stages", {}), "end to end": found}
    names = [name for name, values in stages.items() if "p50" in values]
    places = range(len(names))
    for shift, share in ((-0.2, "p50"), (0.2, "p99")):
        heights = [stages[name][share] for name in names]
        axes.bar([place + shift for place in places], heights, width=0.4, label=share)
    axes.set_xticks(list(places), names)
    axes.set_ylabel("ms")
    axes.legend()


def _rates(axes: Any, report: dict[str, Any]) -> None:
    axes.set_title("Reviews a second")
    for engine, found in report["engines"].items():
        axes.barh(f"mesh, {engine}", found["reviews_per_second"])
    for peer, found in report["peers"].items():
        axes.barh(f"{peer}, lognormal", found["reviews_per_second"])


def _memory(axes: Any, backlog: dict[str, Any]) -> None:
    axes.set_title(f"Memory while {backlog['reviews_waiting']:,} waiting reviews are worked off")
    for name, series in backlog["series"].items():
        axes.plot(*zip(*series, strict=True), label=name)
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB resident")
    axes.set_ylim(bottom=0)
    axes.legend()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
