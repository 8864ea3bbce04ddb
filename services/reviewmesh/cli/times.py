"""Times as options take them."""

from __future__ import annotations

import typer

from reviewmesh.clock import milliseconds, plausible_ms, wall_clock
from reviewmesh.query.where.literals import span_of

TIMES = "2026-11-30, 2026-11-30T08:00:00Z or '7d ago'"


def span_named(option: str, text: str) -> tuple[int, int]:
    """The first and the last millisecond that a text names."""
    span = span_of(text, milliseconds(wall_clock()))
    if span is None or not plausible_ms(span.start_ms):
        raise typer.BadParameter(
            f"expected a time such as {TIMES}, got {text!r:.80}", param_hint=option
        )
    return span.start_ms, span.end_ms


def age(milliseconds_: int) -> str:
    """The two largest units: 3d4h, 5m12s."""
    seconds = max(0, milliseconds_ // 1000)
    parts: list[str] = []
    for size, letter in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        number, seconds = divmod(seconds, size)
        if number or parts or letter == "s":
            parts.append(f"{number}{letter}")
    return "".join(parts[:2])
