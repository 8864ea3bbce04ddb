"""Arrivals in a file: a count of reviews a line, one line a step of time."""

from __future__ import annotations

import math
from pathlib import Path

from reviewmesh.leaving.yamlfile import FileProblem, read_file


def read_arrivals(path: Path) -> list[float]:
    """Raises FileProblem."""
    return read_file(path, parse_arrivals)


def parse_arrivals(text: str) -> list[float]:
    """Without empty lines and those that begin with `#`. Raises FileProblem."""
    counts = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            count = float(line)
        except ValueError:
            count = math.nan
        if not 0 <= count < math.inf:
            raise FileProblem(f"{number}: expected a count of reviews, got {line.strip()!r:.40}")
        counts.append(count)
    if not counts:
        raise FileProblem("1: expected a count of reviews a line, got nothing")
    return counts
