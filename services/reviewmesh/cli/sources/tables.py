"""Rows of a table: CSV, TSV and their kin. The first line names the columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from reviewmesh.cli.sources import rows
from reviewmesh.cli.sources.errors import FileRefused, NoReview, shown
from reviewmesh.cli.sources.physical import PhysicalLines
from reviewmesh.cli.sources.rows import Row, beginning_of, decoded

DELIMITERS = (",", "\t", ";", "|")
NAMES = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "CSV with bars"}
EXCELS_HINT = "sep="
# A line of running text hardly ever has as many cells as a table of so many columns.
TELLING_COLUMNS = 4
# With fewer columns it may, so that so many have to look like rows, and none may look otherwise.
TELLING_ROWS = 5
LOOKED_AT = 50


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
        # Of the module, not of a reader; _Lines has the bound.
        csv.field_size_limit(rows.MAX_ROW_BYTES + 1)
        self._format: dict[str, Any] = {
            "delimiter": dialect.delimiter,
            "quoting": csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
            # A quote in a wrong place moves the borders of cells: refused, not guessed.
            "strict": True,
        }
        self._quoted = dialect.quoted
        self._reader = csv.reader(self._lines, **self._format)
        if dialect.declared:
            next(self._lines, None)
        self.columns = self._header()

    def rows(self, skip: int) -> Iterator[Row]:
        number = 0
        while True:
            self._lines.begin_row()
            problem: NoReview | None = None
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                # What a cell of few columns holds must not be taken for rows.
                few = len(self.columns) < TELLING_COLUMNS
                cells, problem = [], self._recovered(self._problem(error), leaves_cell=few)
            except _Overlong:
                cells, problem = [], self._recovered(_too_long(), leaves_cell=True)
            if cells is None:
                return
            if problem is None:
                if not any(map(str.strip, cells)):
                    continue
                problem = self._check(cells)
                if problem is not None and self._lines.are_several:
                    problem = self._recovered(problem, leaves_cell=False)
            number += 1
            if number <= skip:
                continue
            row = Row(number, self._lines.where())
            row.problem = self._lines.problem or problem
            if row.problem is None:
                named = zip(self.columns, cells, strict=False)
                row.content = {name: cell for name, cell in named if name and cell}
            else:
                row.raw = beginning_of(self._lines.raw())
            yield row

    def _recovered(self, problem: NoReview, leaves_cell: bool) -> NoReview:
        """Goes on where the next row begins, so that a bad one costs no other.

        `leaves_cell`: where no rows are seen, what is left of a quoted cell belongs to the bad row.
        """
        lines = self._lines
        if not self._quoted or not (lines.are_several or lines.leaves_open):
            return problem
        if not self._are_rows(lines.following(LOOKED_AT)):
            if leaves_cell:
                lines.leave_quotes()
        elif lines.are_several:
            lines.keep_first()
            return NoReview(
                "expected a quote that closes the cell, got other rows; write quotes within a cell "
                "twice, or say --unquoted if no cell is quoted"
            )
        return problem

    def _are_rows(self, lines: Iterable[str]) -> bool:
        """Whether these lines are rows of this table rather than the text of a cell."""
        is_telling = len(self.columns) >= TELLING_COLUMNS
        if not is_telling:
            # The end of a quoted cell has such a line.
            lines = _until_odd_quotes(lines)
        reader, good, bad = csv.reader(lines, **self._format), 0, 0
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                # The last one goes on after these lines.
                bad += "end of data" not in str(error)
                continue
            if cells is None:
                break
            if any(cells):
                good, bad = (good, bad + 1) if self._check(cells) else (good + 1, bad)
        if is_telling:
            return good > 0 and bad * 4 <= good
        return len(self.columns) > 1 and good >= TELLING_ROWS and not bad

    def _header(self) -> list[str]:
        try:
            columns = next((list(map(str.strip, c)) for c in self._reader if any(c)), [])
        except csv.Error as error:
            raise FileRefused(f"expected a first line that names columns ({error})") from error
        except _Overlong:
            raise FileRefused(f"the first line, which names columns: {_too_long()}") from None
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


class _Overlong(Exception):
    """The lines of one row are more than a row may be."""


def _too_long() -> NoReview:
    return NoReview(
        f"expected a row of at most {rows.MAX_ROW_BYTES:,} bytes, got a longer one; is there a "
        "quote that nothing closes?"
    )


def _until_odd_quotes(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line.count('"') % 2:
            return
        yield line


class _Lines:
    """The lines that the csv module reads, with a bound for those of one row."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._lines = PhysicalLines(file)
        self._encoding = encoding
        self._first = 0
        self._row = bytearray()
        self._beginning = 0
        """How long the first line of the row is."""
        self.problem: NoReview | None = None
        """What keeps the lines of this row from being text."""

    def begin_row(self) -> None:
        self._row.clear()
        self.problem = None
        self._first = self._lines.number + 1

    @property
    def are_several(self) -> bool:
        return len(self._row) > self._beginning

    @property
    def leaves_open(self) -> bool:
        """Whether the row ends within a quoted cell, by the number of its quotes."""
        return self._row.count(b'"') % 2 == 1

    def where(self) -> str:
        number = self._lines.number
        return f"line {number}" if self._first >= number else f"lines {self._first} to {number}"

    def raw(self) -> bytes:
        """Its beginning."""
        return bytes(self._row[: rows.KEPT_OF_A_REFUSED * 4])

    def following(self, count: int) -> list[str]:
        """The lines after the first of this row, those after the row among them."""
        rest = bytes(self._row[self._beginning :])
        found = [line + b"\n" for line in rest.split(b"\n", count)[:count] if line]
        found += self._lines.peeked(count - len(found))
        return [line.decode("utf-8", "replace") for line in found]

    def keep_first(self) -> None:
        """Take all but its first line out of the row: they come again."""
        self._lines.unread(bytes(self._row[self._beginning :]))
        del self._row[self._beginning :]
        self.problem = None
        self._text_of(bytes(self._row))

    def leave_quotes(self) -> None:
        """Go on to the end of a quoted cell, keeping nothing of it."""
        is_open = self.leaves_open
        while is_open and (line := self._lines.read()):
            is_open ^= line.count(b'"') % 2 == 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._lines.read()
        if not line:
            raise StopIteration
        is_first = not self._row
        if is_first and line.isspace():
            # Does not belong to the row that comes after it.
            self._first = self._lines.number + 1
            return line.decode()
        self._row += line
        if is_first:
            self._beginning = len(line)
        if len(self._row) > rows.MAX_ROW_BYTES:
            raise _Overlong
        return self._text_of(line)

    def _text_of(self, line: bytes) -> str:
        """The line as text; the others of its row are needed to find its end."""
        try:
            return decoded(line, self._encoding)
        except NoReview as problem:
            self.problem = self.problem or problem
            return line.decode("utf-8", "replace")
