"""The report: what was measured, on what machine, as one JSON file."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

from bench import reviews

FOLDER = Path("build/reports")
FILE = FOLDER / "bench.json"
MEMORY_FILE = FOLDER / "bench-memory.json"


class Report:
    """Written after every part, so that a run that breaks off leaves what it has."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._began = time.monotonic()
        self.content: dict[str, Any] = {
            "began_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(),
            "reviews": reviews.source(),
            "engines": {},
            "peers": {},
            "not_measured": {},
        }

    def write(self) -> None:
        self.content["seconds"] = round(time.monotonic() - self._began, 1)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
