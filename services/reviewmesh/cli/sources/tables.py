"""Rows of a table: CSV, TSV and their kin. The first line names the columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from reviewmesh.cli.sources import rows
from reviewmesh.cli.sources.errors import FileBroken, FileRefused, NoReview, shown
from reviewmesh.cli.sources.rows import Row, beginning_of, bounded_lines, decoded

DELIMITERS = (",", "\t", ";", "|")
NAMES = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "CSV with bars"}
EXCELS_HINT = "sep="
# A line of running text hardly ever has as many cells as a table of so many columns.
TELLING_COLUMNS = 4


@dataclass(frozen=True)
class Dialect:
    """How the cells of a table are told apart."""

    delimiter: str
    quoted: bool = True
    declared: bool = False
    """Whether its first line is Excel's `sep=`."""


def dialect_of(first_line: str) -> Dialect:
    """By the first line: the delimiter that makes most columns of it."""
    hint = first_line.strip().lower()
    if hint.startswith(EXCELS_HINT) and len(hint) == len(EXCELS_HINT) + 1:
        return Dialect(hint[-1], declared=True)
    if hint == EXCELS_HINT:
        return Dialect("\t", declared=True)

    def columns(delimiter: str) -> int:
        try:
            return len(next(csv.reader([first_line], delimiter=delimiter)))
        except (csv.Error, StopIteration):
            return 0

    return Dialect(max(DELIMITERS, key=columns))


class Table:
    """A table whose header has been read."""

    def __init__(self, file: BinaryIO, encoding: str, dialect: Dialect) -> None:
        self._lines = _Lines(file, encoding)
        self._encoding = encoding
        # Of the module, not of a reader; _Lines has the bound.
        csv.field_size_limit(rows.MAX_ROW_BYTES + 1)
        self._reader = csv.reader(
            self._lines,
            delimiter=dialect.delimiter,
            quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
            # A quote in a wrong place moves the borders of cells: refused, not guessed.
            strict=True,
        )
        if dialect.declared:
            next(self._lines, None)
        self.columns = self._header()

    def rows(self, skip: int) -> Iterator[Row]:
        number = 0
        while True:
            self._lines.begin_row()
            try:
                cells = next(self._reader, None)
                problem = None
            except csv.Error as error:
                problem = self._problem(error)
                cells = []
                if len(self.columns) < TELLING_COLUMNS:
                    self._lines.leave_quotes()
            if cells is None:
                return
            if not problem and not any(map(str.strip, cells)):
                continue
            number += 1
            if number <= skip:
                continue
            row = Row(number, self._lines.where())
            row.problem = self._lines.problem or problem or self._check(cells)
            if row.problem is None:
                named = zip(self.columns, cells, strict=False)
                row.content = {name: cell for name, cell in named if name and cell}
            else:
                row.raw = beginning_of(self._lines.raw())
            yield row

    def _header(self) -> list[str]:
        try:
            columns = next((list(map(str.strip, c)) for c in self._reader if any(c)), [])
        except csv.Error as error:
            raise FileRefused(f"expected a first line that names columns ({error})") from error
        if self._lines.problem:
            raise FileRefused(f"the first line, which names columns: {self._lines.problem}")
        twice = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
        if twice:
            raise FileRefused(
                f"expected each column once, got {shown(twice[0])} twice; rename one of them"
            )
        return columns

    def _check(self, cells: Sequence[str]) -> NoReview | None:
        # Sheets leave empty columns at the end.
        extra = cells[len(self.columns) :]
        unnamed = [c for name, c in zip(self.columns, cells, strict=False) if not name and c]
        if any(extra) or unnamed or len(cells) < len(self.columns):
            return NoReview(
                f"expected {len(self.columns)} cells as the first line has, got {len(cells)}; a "
                "cell with a separator or a line break needs quotes"
            )
        return None

    @staticmethod
    def _problem(error: csv.Error) -> NoReview:
        words = str(error)
        if "end of data" in words:
            return NoReview("expected a quote that closes the cell, got the end of the file")
        if "expected after" in words:
            return NoReview(
                "expected a separator after the quote that closes a cell, got something else; "
                "write quotes within a cell twice, or say --unquoted if no cell is quoted"
            )
        return NoReview(f"expected a row of cells, got one that is none ({words})")


class _Lines:
    """The lines that the csv module reads, with a bound for those of one row."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._lines = bounded_lines(file)
        self._encoding = encoding
        self._number = 0
        self._first = 0
        self._size = 0
        self._row: list[str] = []
        self.problem: NoReview | None = None
        """What keeps the lines of this row from being text."""

    def begin_row(self) -> None:
        self._row.clear()
        self.problem = None
        self._size = 0
        self._first = self._number + 1

    def where(self) -> str:
        if self._first >= self._number:
            return f"line {self._number}"
        return f"lines {self._first} to {self._number}"

    def raw(self) -> str:
        return "".join(self._row)

    def leave_quotes(self) -> None:
        """Go on to the end of a quoted cell: what it holds must not be taken for rows."""
        while self.raw().count('"') % 2 and next(self, None) is not None:
            pass

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        self._size += len(line)
        if self._size > rows.MAX_ROW_BYTES:
            raise FileBroken(
                f"expected a row of at most {rows.MAX_ROW_BYTES:,} bytes, got a longer one that "
                f"begins in line {self._first}; is there a quote that nothing closes?"
            )
        try:
            text = decoded(line, self._encoding)
        # The other lines of the row are needed to find its end.
        except NoReview as problem:
            self.problem = self.problem or problem
            text = line.decode("utf-8", "replace")
        if not self._row and text.isspace():
            # Does not belong to the row that comes after it.
            self._first = self._number + 1
        else:
            self._row.append(text)
        return text
