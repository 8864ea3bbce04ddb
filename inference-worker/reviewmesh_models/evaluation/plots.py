"""Plots as SVG, for a page without external files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from reviewmesh_models.evaluation.report import Bin, Confusion

_BAR_WIDTH: Final = 220
_BAR_HEIGHT: Final = 16
_CELL: Final = 74
_SIDE: Final = 240
_MARGIN: Final = 44


def interval(low: float, value: float, high: float, start: float, end: float) -> str:
    """A value with its interval on a line from `start` to `end`; zero is marked inside it."""

    def at(number: float) -> float:
        inside = min(max(number, start), end)
        return 4 + (inside - start) / (end - start) * (_BAR_WIDTH - 8)

    middle = _BAR_HEIGHT / 2
    zero = (
        f'<line x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{_BAR_HEIGHT}" class="zero"/>'
        if start < 0 < end
        else ""
    )
    return _svg(
        _BAR_WIDTH,
        _BAR_HEIGHT,
        f"{value:.3f}, 95 % from {low:.3f} to {high:.3f}",
        f'<line x1="4" x2="{_BAR_WIDTH - 4}" y1="{middle}" y2="{middle}" class="axis"/>{zero}'
        f'<rect x="{at(low):.1f}" y="{middle - 4}" height="8" '
        f'width="{max(at(high) - at(low), 1):.1f}" class="interval"/>'
        f'<circle cx="{at(value):.1f}" cy="{middle}" r="3.5" class="value"/>',
    )


def confusion(of: Confusion, no_answer: str) -> str:
    """A square per pair of labels, shaded by its share of the row."""
    columns = [*of.labels, no_answer] if any(row[-1] for row in of.counts) else of.labels
    left = top = 90
    parts = [_text(left + len(columns) * _CELL / 2, 16, "said", "middle"), _text(4, top - 8, "is")]
    for at, column in enumerate(columns):
        parts.append(_text(left + (at + 0.5) * _CELL, top - 8, column, "middle"))
    for down, (label, counts) in enumerate(zip(of.labels, of.counts, strict=True)):
        y = top + down * _CELL
        parts.append(_text(left - 8, y + _CELL / 2 + 4, label, "end"))
        for right, count in enumerate(counts[: len(columns)]):
            share = count / max(sum(counts), 1)
            x = left + right * _CELL
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="{_CELL - 2}" '
                f'class="{"right" if down == right else "wrong"}" '
                f'fill-opacity="{0.06 + 0.94 * share:.2f}"/>'
            )
            shade = "on-dark" if share > 0.5 else ""
            middle = x + _CELL / 2 - 1
            parts.append(
                _text(middle, y + _CELL / 2, text=str(count), anchor="middle", shade=shade)
            )
            parts.append(
                _text(middle, y + _CELL / 2 + 16, text=f"{share:.0%}", anchor="middle", shade=shade)
            )
    width, height = left + len(columns) * _CELL, top + len(of.labels) * _CELL
    return _svg(width, height, "confusion matrix", "".join(parts))


def calibration(bins: Sequence[Bin]) -> str:
    """Accuracy of answers by their probability; the diagonal is perfect calibration."""
    size = _SIDE + 2 * _MARGIN
    most = max((one.answers for one in bins), default=1)

    def x(number: float) -> float:
        return _MARGIN + number * _SIDE

    def y(number: float) -> float:
        return _MARGIN + (1 - number) * _SIDE

    parts = [
        f'<rect x="{x(0)}" y="{y(1)}" width="{_SIDE}" height="{_SIDE}" class="frame"/>',
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" class="axis"/>',
        _text(x(0.5), size - 8, "stated probability", "middle"),
        _text(x(0), y(1) - 10, "share that is right"),
    ]
    for number in (0.0, 0.5, 1.0):
        parts.append(_text(x(number), y(0) + 16, f"{number:g}", "middle"))
        parts.append(_text(x(0) - 6, y(number) + 4, f"{number:g}", "end"))
    for one in bins:
        radius = 3 + 9 * (one.answers / most) ** 0.5
        parts.append(
            f'<circle cx="{x(one.stated):.1f}" cy="{y(one.right):.1f}" r="{radius:.1f}" '
            f'class="bin"><title>{one.answers} answers, stated {one.stated:.2f}, right '
            f"{one.right:.2f}</title></circle>"
        )
    return _svg(size, size, "calibration", "".join(parts))


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    marks: Sequence[tuple[float, float, str]],
    across: str,
    up: str,
) -> str:
    """Up to two lines with their names, and marked points; `across` and `up` name the axes.

    The axes begin at 0 and end with the largest numbers.
    """
    width, height, left = 3 * _SIDE, _SIDE, 2 * _MARGIN
    points = [point for line in series.values() for point in line]
    furthest = max(point[0] for point in points) or 1
    highest = max(point[1] for point in points) or 1

    def x(number: float) -> float:
        return left + number / furthest * width

    def y(number: float) -> float:
        return _MARGIN + (1 - number / highest) * height

    parts = [
        f'<rect x="{left}" y="{_MARGIN}" width="{width}" height="{height}" class="frame"/>',
        _text(x(furthest / 2), height + 2 * _MARGIN - 8, across, "middle"),
        _text(left, _MARGIN - 10, up),
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_text(x(share * furthest), y(0) + 16, f"{share * furthest:,.0f}", "middle"))
        parts.append(_text(left - 6, y(share * highest) + 4, f"{share * highest:,.0f}", "end"))
    for number, (name, line) in enumerate(series.items()):
        drawn = " ".join(f"{x(across_):.1f},{y(up_):.1f}" for across_, up_ in line)
        parts.append(f'<polyline points="{drawn}" class="line-{number}"/>')
        legend = _MARGIN + 16 + 18 * number
        parts.append(
            f'<line x1="{left + 12}" x2="{left + 36}" y1="{legend}" y2="{legend}" '
            f'class="line-{number}"/>'
        )
        parts.append(_text(left + 42, legend + 4, name))
    for across_, up_, said in marks:
        parts.append(
            f'<circle cx="{x(across_):.1f}" cy="{y(up_):.1f}" r="4" class="bin">'
            f"<title>{escape(said)}</title></circle>"
        )
    return _svg(left + width + _MARGIN, height + 2 * _MARGIN, f"{up} by {across}", "".join(parts))


def _text(x: float, y: float, text: str, anchor: str = "start", shade: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{shade}">'
        f"{escape(text)}</text>"
    )


def _svg(width: float, height: float, label: str, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">{content}</svg>'
    )
