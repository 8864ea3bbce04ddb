"""Tables that fit: every cell is whole, on a wide terminal, a narrow one and in a pipe.

A table that is too wide moves its columns closer together, then wraps those that may be wrapped,
and on a narrow terminal becomes a list: a block for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reviewmesh_kit.printable import plain

Cell = str | Text

GAPS = (2, 1)
NARROWEST_WRAPPED = 14
INDENT = "  "


class Column(NamedTuple):
    name: str
    right: bool = False
    """Numbers."""
    wraps: bool = False
    """Sentences and ids of any length; other cells stay on one line where the table is one."""


def right(*names: str) -> list[Column]:
    return [Column(name, right=True) for name in names]


class FittingTable:
    """The first column names a row."""

    def __init__(self, *columns: Column | str) -> None:
        self._columns = [item if isinstance(item, Column) else Column(item) for item in columns]
        self._rows: list[tuple[Sequence[Text], str]] = []

    def add_row(self, *cells: Cell, style: str = "") -> None:
        assert len(cells) == len(self._columns)
        # Escaped here already: what a column needs is measured on what is shown.
        shown = [
            Text(plain(str(cell)), style=cell.style if isinstance(cell, Text) else "")
            for cell in cells
        ]
        self._rows.append((shown, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        natural = [
            max(cell_len(column.name), *(row[number].cell_len for row, _ in self._rows), 1)
            for number, column in enumerate(self._columns)
        ]
        room = options.max_width
        for gap in GAPS:
            if sum(natural) + gap * (len(natural) - 1) <= room:
                yield from console.render(self._table(gap, natural), options.update(width=room))
                return
        if widths := self._wrapped(natural, room - GAPS[-1] * (len(natural) - 1)):
            table = self._table(GAPS[-1], widths)
            yield from console.render(table, options.update(width=room))
            return
        yield from self._blocks(room)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def _wrapped(self, natural: Sequence[int], room: int) -> list[int]:
        """Widths with which the table fits, the wrapped columns by need; empty if it cannot."""
        wrapping = [number for number, column in enumerate(self._columns) if column.wraps]
        left = room - sum(
            width for number, width in enumerate(natural) if not self._columns[number].wraps
        )
        widths = list(natural)
        # The smallest first: what one does not need, the others get.
        for place, number in enumerate(sorted(wrapping, key=lambda each: natural[each])):
            share = left // (len(wrapping) - place)
            widths[number] = min(natural[number], share)
            if widths[number] < min(natural[number], NARROWEST_WRAPPED):
                return []
            left -= widths[number]
        return widths if wrapping and sum(widths) <= room else []

    def _table(self, gap: int, widths: Sequence[int]) -> Table:
        table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
        for column, width in zip(self._columns, widths, strict=True):
            table.add_column(
                column.name,
                justify="right" if column.right else "left",
                width=width,
                overflow="fold",
                no_wrap=not column.wraps,
            )
        for cells, style in self._rows:
            table.add_row(*cells, style=style)
        return table

    def _blocks(self, room: int) -> Iterable[RenderableType]:
        """Each row as its name and, below, the other cells with theirs; empty ones are left out."""
        for cells, style in self._rows:
            yield _wrapping("bold").append(cells[0].plain or self._columns[0].name)
            line = _wrapping(style)
            for column, cell in zip(self._columns[1:], cells[1:], strict=True):
                if not cell.plain:
                    continue
                pair = Text.assemble((f"{column.name} ", "dim"), cell)
                if line.cell_len and len(INDENT) + line.cell_len + 2 + pair.cell_len > room:
                    yield Padding(line, (0, 0, 0, len(INDENT)), expand=False)
                    line = _wrapping(style)
                line.append("  " if line.cell_len else "").append_text(pair)
            yield Padding(line, (0, 0, 0, len(INDENT)), expand=False)


def _wrapping(style: str) -> Text:
    # The console wraps no text of its own accord.
    return Text(style=style, no_wrap=False, overflow="fold")
