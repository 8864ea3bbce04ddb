"""Reviews per second of one GPU, from the report of a benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

RATE: Final = "worker_reviews_per_s"
"""The rate of a task in the reports of `make bench-gpu` and `make bench-vllm`."""
LISTED: Final = 20


class FiguresError(ValueError):
    """A report lacks the required figures; the message lists those that it has."""


@dataclass(frozen=True)
class Measured:
    """A rate, and the figures of the report that it comes from."""

    rate: Fraction
    figures: tuple[str, ...]
    device: str | None


def read_rate(file: Path, figures: list[str]) -> Measured:
    """The rate of reviews if each needs all these answers, one after the other.

    `figures` are paths into the JSON, such as `tasks.topic.worker_reviews_per_s`; without any, all
    below `tasks`. Raises ReportError and OSError.
    """
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FiguresError(f"{file}: expected JSON ({error})") from error
    there = _rates("", report)
    tasks = [path for path in there if path.startswith("tasks.") and path.endswith(f".{RATE}")]
    wanted = figures or tasks
    if missing := [path for path in wanted if path not in there]:
        raise FiguresError(f"{file}: expected a rate above 0 at {missing[0]}{_has(there)}")
    if not wanted:
        raise FiguresError(f"{file}: expected rates at tasks.*.{RATE}; name --figure{_has(there)}")
    seconds = sum((1 / there[path] for path in wanted), Fraction())
    device = report.get("device")
    return Measured(1 / seconds, tuple(wanted), device if isinstance(device, str) else None)


def _rates(path: str, value: Any) -> dict[str, Fraction]:
    """Every number above 0 of the report, by its path."""
    if isinstance(value, dict):
        inner = [_rates(f"{path}.{key}" if path else str(key), value[key]) for key in value]
        return {name: rate for part in inner for name, rate in part.items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {path: Fraction(value)} if is_number and math.isfinite(value) and value > 0 else {}


def _has(there: dict[str, Fraction]) -> str:
    named = [path for path in there if path.endswith("reviews_per_s")][:LISTED]
    return f"; it has {', '.join(named)}" if named else "; it has no rates"
