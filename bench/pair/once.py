"""`python once.py RATE SECONDS`: one trial of the mesh of the working directory, as a line of JSON.

Run as a file, with the revision's own packages on PYTHONPATH: so it also measures revisions that do
not have this file.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.harness import harness
from bench.system import running_mesh
from tests.broker import running_stack

WARM_UP = 2_000
LIMIT_FACTOR = 3.0


def main() -> None:
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    with (
        tempfile.TemporaryDirectory(prefix="reviewmesh-pair-") as folder,
        running_stack() as stack,
        running_mesh(stack, Path(folder) / "mesh", ["bench.engine", "instant"]) as mesh,
        harness(stack, mesh) as measured,
    ):
        measured.burst(WARM_UP)
        trial = measured.trial(rate, seconds, seconds * LIMIT_FACTOR)
        services = [name for name in mesh.pids() if name in trial.cpu_s_per_1000]
    print(
        json.dumps(
            {
                "holds": trial.holds,
                "cpu_s_per_1000": sum(trial.cpu_s_per_1000[name] for name in services),
                "by_process": {name: trial.cpu_s_per_1000[name] for name in services},
                "broker_cpu_s_per_1000": trial.cpu_s_per_1000.get("broker", 0.0),
                "p50_ms": trial.latencies.percentile_ms(0.5),
                "p99_ms": trial.latencies.percentile_ms(0.99),
                "others_cores": trial.others_cores,
            }
        )
    )


if __name__ == "__main__":
    main()
