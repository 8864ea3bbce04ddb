"""Memory of the services while they work off reviews that waited for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.harness import Failed, harness
from bench.meter import Meter
from bench.system import MeshSystem
from tests.broker import TestStack
from tests.mesh import SERVICES

WAITING = 200_000
SAMPLE_S = 0.5
STALLED_S = 60.0
LIMIT_MB = 200.0
# What a service needs to have its buffers full is not growth: that is compared after it.
EARLY, LATE = (0.2, 0.4), (0.8, 1.0)
FLAT_MB = 10.0


def work_off(stack: TestStack, mesh: MeshSystem, tell: Callable[[str], None]) -> dict[str, Any]:
    """Stop the services, publish, start them, and watch their memory until all is out."""
    with harness(stack, mesh) as measured:
        processes = mesh.mesh.processes
        for name in SERVICES:
            processes[name].terminate()
        out = measured.publish(WAITING)
        tell(f"{WAITING:,} reviews wait")
        for name in SERVICES:
            processes[name].start()
        meter = Meter(mesh.pids())
        series: list[tuple[float, int, dict[str, float]]] = []
        began = moved = time.monotonic()
        while not series or series[-1][1] < WAITING:
            time.sleep(SAMPLE_S)
            series.append((time.monotonic() - began, out(), meter.read().rss_mb))
            if len(series) < 2 or series[-1][1] > series[-2][1]:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED_S:
                raise Failed(f"only {series[-1][1]:,} of {WAITING:,} came out\n{mesh.report()}")
    tell(f"worked off in {series[-1][0]:.0f} s")
    services = {name: _of_service(name, series, tell) for name in SERVICES}
    return {
        "reviews_waiting": WAITING,
        "seconds": round(series[-1][0], 1),
        "services": services,
        "memory_mb": {name: round(mb, 1) for name, mb in meter.max_rss_mb.items()},
        "series": {
            name: [(round(at, 1), round(rss[name], 1)) for at, _, rss in series]
            for name in SERVICES
        },
    }


def _of_service(
    name: str, series: list[tuple[float, int, dict[str, float]]], tell: Callable[[str], None]
) -> dict[str, Any]:
    def mean_while(share: tuple[float, float]) -> float:
        found = [rss[name] for _, out, rss in series if share[0] <= out / WAITING <= share[1]]
        return sum(found) / len(found) if found else float("nan")

    largest = max(rss[name] for _, _, rss in series)
    growth = mean_while(LATE) - mean_while(EARLY)
    tell(f"{name}: at most {largest:.0f} MB, from early to late {growth:+.1f} MB")
    return {
        "max_mb": round(largest, 1),
        "growth_mb": round(growth, 1),
        "flat": growth < FLAT_MB,
        "under_limit": largest < LIMIT_MB,
    }
