"""capacity.yaml: what one worker does, by task and device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from reviewmesh.leaving.yamlfile import Document, FileProblem, read_file
from reviewmesh_kit.settings import Section

FORMAT = 1
HEADER = """\
# What one worker does at its objective. Written by `reviewmesh capacity worker`, which replaces the
# entry of the same task and device; see docs/capacity.md.
"""


class WorkerCapacity(Section):
    """One worker, on one task, on one kind of device."""

    task: str
    device: str
    engine: str = ""
    model: str = ""
    model_version: str = ""
    objective_s: float = Field(gt=0)
    """Of its p95."""
    reviews_per_s: float = Field(gt=0)
    p50_s: float = Field(ge=0)
    p95_s: float = Field(ge=0)
    is_lower_bound: bool = False
    """Whether the load generator or the time was at its end before the worker was."""
    start_s: float | None = Field(default=None, ge=0)
    """From the decision until it answers."""
    dollars_per_hour: float | None = Field(default=None, ge=0)
    measured_at: str = ""
    command: str = ""


class CapacityFile(Section):
    """The whole file."""

    version: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    workers: list[WorkerCapacity] = Field(default_factory=list)

    def replacing(self, measured: WorkerCapacity) -> CapacityFile:
        """With this entry in place of that of the same task and device."""
        kept = [
            entry
            for entry in self.workers
            if (entry.task, entry.device) != (measured.task, measured.device)
        ]
        workers = sorted([*kept, measured], key=lambda entry: (entry.task, entry.device))
        return CapacityFile(workers=workers)


def parse_capacity(text: str) -> CapacityFile:
    """Raises FileProblem."""
    document = Document(text, "`version` and `workers`")
    found = document.as_form(CapacityFile)
    seen = set()
    for number, entry in enumerate(found.workers):
        if (entry.task, entry.device) in seen:
            line = document.line("workers", number)
            raise FileProblem(f"{line}: {entry.task} on {entry.device} is there twice")
        seen.add((entry.task, entry.device))
    return found


def read_capacity(path: Path) -> CapacityFile:
    """Raises FileProblem."""
    return read_file(path, parse_capacity)


def write_capacity(path: Path, capacity: CapacityFile) -> None:
    """In one step, so that nobody reads half of it."""
    content = yaml.safe_dump(capacity.model_dump(), sort_keys=False, allow_unicode=True, width=100)
    draft = path.with_name(path.name + ".new")
    draft.write_text(HEADER + content, encoding="utf-8")
    draft.replace(path)


def chart_values(group: str, entries: Sequence[WorkerCapacity]) -> dict[str, Any]:
    """What a group of workers of these tasks takes from their measurements; for Helm."""
    told: dict[str, Any] = {
        "scaling": {
            "enabled": True,
            "reviewsPerSecond": {entry.task: entry.reviews_per_s for entry in entries},
        }
    }
    starts = [entry.start_s for entry in entries if entry.start_s is not None]
    if starts:
        told["startSeconds"] = math.ceil(max(starts))
    return {"workers": {group: told}}
