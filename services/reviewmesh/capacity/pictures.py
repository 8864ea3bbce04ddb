"""A replay as SVG and as CSV. Pure: no library draws it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from html import escape

from reviewmesh.capacity.replay import HOUR_S, Moment

WIDTH, PANEL, GAP, LEFT = 960, 130, 46, 70
POINTS = 900
STYLE = "font-family: sans-serif; font-size: 12px"


@dataclass(frozen=True)
class _Panel:
    title: str
    value: Callable[[Moment], float]
    colour: str


PANELS = (
    _Panel("reviews/s that arrive", lambda moment: moment.arrivals_per_s, "#4878a8"),
    _Panel("seconds that the oldest review waits", lambda moment: moment.lag_s, "#b04a3a"),
    _Panel("replicas", lambda moment: moment.replicas, "#3a7d44"),
)


def as_csv(moments: Sequence[Moment]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Moment)])
    writer.writerows([f"{value:g}" for value in astuple(moment)] for moment in moments)
    return text.getvalue()


def as_svg(moments: Sequence[Moment], title: str) -> str:
    """One panel above the other, over hours."""
    height = GAP + len(PANELS) * (PANEL + GAP)
    end = max(moments[-1].at_s, 1.0)
    thin = _peaks(moments)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" style="{STYLE}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, panel in enumerate(PANELS):
        top = GAP + number * (PANEL + GAP)
        highest = max([panel.value(moment) for moment in moments] + [1e-9])
        points = " ".join(
            f"{LEFT + moment.at_s / end * (WIDTH - LEFT - 20):.1f},"
            f"{top + PANEL * (1 - panel.value(moment) / highest):.1f}"
            for moment in thin[number]
        )
        parts += [
            f'<text x="{LEFT}" y="{top - 6}">{panel.title}</text>',
            f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{highest:,.4g}</text>',
            f'<text x="{LEFT - 6}" y="{top + PANEL}" text-anchor="end">0</text>',
            f'<path d="M{LEFT} {top}V{top + PANEL}H{WIDTH - 20}" fill="none" stroke="#999"/>',
            f'<polyline points="{points}" fill="none" stroke="{panel.colour}" stroke-width="1.5"/>',
        ]
    hours = f"{end / HOUR_S:.1f} hours"
    parts.append(f'<text x="{WIDTH - 20}" y="{height - 12}" text-anchor="end">{hours}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _peaks(moments: Sequence[Moment]) -> list[list[Moment]]:
    """For each panel, the highest moment of each of at most POINTS stretches."""
    size = max(1, -(-len(moments) // POINTS))
    stretches = [moments[at : at + size] for at in range(0, len(moments), size)]
    return [[max(stretch, key=panel.value) for stretch in stretches] for panel in PANELS]
