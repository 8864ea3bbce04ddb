"""A broken row costs itself, whatever comes behind it, within bounded memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pytest

from reviewmesh.cli.sources.columns import Columns
from reviewmesh.cli.sources.errors import FileRefused
from reviewmesh.cli.sources.reading import Options, Source
from reviewmesh.cli.sources.rows import MAX_ROW_BYTES, Row

OVERLONG = "x" * (MAX_ROW_BYTES + 1)
MANY_LINES = "one, two\n" * (MAX_ROW_BYTES // 9 + 1)
# The largest row, and what its decoding and the csv module's cell take of it.
MOST_BYTES = 12 * MAX_ROW_BYTES


def rows_of(content: str | BinaryIO, unquoted: bool = False) -> list[Row]:
    file = io.BytesIO(content.encode()) if isinstance(content, str) else content
    columns = Columns.of((), "drop", (), None)
    return list(Source(file, Options(columns=columns, unquoted=unquoted)).rows())


def outcome(rows: list[Row]) -> tuple[list[str], list[str]]:
    """The ids of the good rows, and where the others are."""
    good = [str(row.content["review_id"]) for row in rows if row.problem is None and row.content]
    return good, [row.where for row in rows if row.problem is not None]


@dataclass(frozen=True)
class Form:
    """How a file is written: what stands around its rows, and how a row is."""

    start: str
    row: Callable[[int], str]
    between: str = "\n"
    end: str = "\n"

    def file(self, *rows: str) -> str:
        return self.start + self.between.join(rows) + self.end


def _item(number: int) -> str:
    return json.dumps({"review_id": str(number), "text": "fine, really", "stars": 4})


def _table(separator: str, columns: int) -> Form:
    names = ["review_id", "text", "stars", "title"][:columns]
    tail = separator.join(["", "4", "good"][: columns - 1])
    return Form(
        separator.join(names) + "\n", lambda number: f"{number}{separator}fine {number}{tail}"
    )


FORMS = {
    "csv of two columns": _table(",", 2),
    "csv of three columns": _table(",", 3),
    "csv of four columns": _table(",", 4),
    "tsv": _table("\t", 4),
    "an array": Form("[", _item, ",", "]"),
    "an indented array": Form("[\n", _item, ",\n", "\n]\n"),
    "objects in a row": Form("[]\n", _item, "\n", "\n"),
    "json lines": Form("", _item),
}
TABLES = [name for name in FORMS if "csv" in name or name == "tsv"]
COUNT = 20


def _damaged(form: Form, damage: str) -> str:
    """A row of the form that lacks something."""
    row = form.row(99)
    is_json = row.startswith("{")
    match damage:
        case "an opening quote":
            return row.replace('"fine', '"fi"ne') if is_json else row.replace("fine", '"fine')
        case "a closing quote":
            return row.replace('really"', "really") if is_json else row.replace("99", '"99', 1)
        case "overlong":
            return row.replace("fine", OVERLONG)
        case "zeros":
            return "\x00" * 3
    raise AssertionError(damage)


@pytest.mark.parametrize("damage", ["an opening quote", "a closing quote", "overlong", "zeros"])
@pytest.mark.parametrize("name", FORMS)
def test_every_other_row_of_the_file_is_read(name: str, damage: str) -> None:
    form = FORMS[name]
    rows = [form.row(number) for number in range(COUNT)]
    rows[3] = _damaged(form, damage)
    good, bad = outcome(rows_of(form.file(*rows)))
    assert good == [str(number) for number in range(COUNT) if number != 3]
    assert len(bad) == 1


@pytest.mark.parametrize("name", TABLES)
def test_each_of_two_broken_rows_is_refused_alone(name: str) -> None:
    form = FORMS[name]
    rows = [form.row(number) for number in range(COUNT)]
    rows[3] = rows[14] = _damaged(form, "an opening quote")
    good, bad = outcome(rows_of(form.file(*rows)))
    assert good == [str(number) for number in range(COUNT) if number not in (3, 14)]
    assert bad == ["line 5", "line 16"]


@pytest.mark.parametrize("name", ["csv of three columns", "csv of four columns", "tsv"])
def test_an_overlong_cell_of_many_lines_is_one_row(name: str) -> None:
    form = FORMS[name]
    rows = [form.row(number) for number in range(COUNT)]
    rows[3] = form.row(99).replace("fine 99", f'"{MANY_LINES}"')
    good, bad = outcome(rows_of(form.file(*rows)))
    assert good == [str(number) for number in range(COUNT) if number != 3]
    assert len(bad) == 1 and bad[0].startswith("lines 5 to ")


def test_what_a_quoted_cell_holds_is_not_taken_for_rows() -> None:
    """Text with as many commas as a row has, behind a quote that was not doubled."""
    table = 'review_id,text,stars\n1,"so "nice" it\nwas, really, 5\nand, was",5\n2,fine,4\n'
    assert outcome(rows_of(table)) == (["2"], ["lines 2 to 4"])


def test_what_an_object_holds_is_not_taken_for_rows() -> None:
    reply = {"review_id": "1-1", "text": "thanks"}
    broken = json.dumps({"review_id": "1", "text": "so nice", "replies": [reply, reply]})
    broken = broken.replace("so nice", 'so "nice')
    whole = json.dumps({"review_id": "2", "text": "fine"})
    assert outcome(rows_of(f"[{broken}, {whole}]")) == (["2"], ["item 1"])


def test_rows_are_numbered_alike_whether_or_not_some_are_skipped() -> None:
    form = FORMS["csv of four columns"]
    rows = [form.row(number) for number in range(COUNT)]
    rows[3] = _damaged(form, "an opening quote")
    content = form.file(*rows).encode()
    columns = Columns.of((), "drop", (), None)
    skipped = Source(io.BytesIO(content), Options(columns=columns, skip=10))
    assert [(row.number, row.where) for row in skipped.rows()] == [
        (row.number, row.where) for row in rows_of(io.BytesIO(content)) if row.number > 10
    ]


@pytest.mark.parametrize("content", [f"text,{OVERLONG}\nfine,1\n", '"text,stars\n' + MANY_LINES])
def test_a_first_line_that_names_no_columns_is_said_of_the_file(content: str) -> None:
    with pytest.raises(FileRefused, match="first line"):
        rows_of(content)


class _Endless(io.RawIOBase):
    """A start, then one line again and again, so many bytes in all."""

    def __init__(self, start: bytes, line: bytes, size: int) -> None:
        self._parts = self._all(start, line, size)
        self._rest = b""

    @staticmethod
    def _all(start: bytes, line: bytes, size: int) -> Iterator[bytes]:
        yield start
        block = line * (65_536 // len(line))
        for _ in range(size // len(block)):
            yield block

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._rest = self._rest or next(self._parts, b"")
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (b'text,stars\n"', b"one two three, and four, of a long sentence\n"),
        (b"text,stars\n", b"x" * 64),
        (b'[{"text": "', b"one, two"),
        (b'{"text": "', b"one, two"),
    ],
)
def test_memory_is_bounded(start: bytes, line: bytes) -> None:
    file = io.BufferedReader(_Endless(start, line, 8 * MAX_ROW_BYTES))
    source = Source(file, Options(columns=Columns.of((), "drop", (), None)))
    tracemalloc.start()
    try:
        assert next(source.rows()).problem is not None
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
