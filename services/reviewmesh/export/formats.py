"""How rows lie in files: Parquet, or one line of JSON each.

Rows pass through here as Arrow tables in either format, for JSON with their lines as the only
column: so they are counted, chosen and put together in one way.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from reviewmesh.export.columns import View, fitted

# A group of rows is what a reader of Parquet decodes at once, and what is held here.
GROUP_BYTES = 16 * 1024 * 1024
READ_ROWS = 2_000
LINE = "line"
COMPRESSION = "zstd"
GZIP_LEVEL = 6


class Sink(Protocol):
    def write(self, table: pa.Table) -> None: ...


class RowFormat(Protocol):
    """One way to write views."""

    name: str
    suffix: str

    def table(self, view: View, rows: list[dict[str, Any]]) -> pa.Table:
        """Rows of a view as they will be written."""
        ...

    def writing(self, file: BinaryIO, view: View) -> AbstractContextManager[Sink]: ...

    def tables(self, file: BinaryIO, view: View) -> Iterator[pa.Table]:
        """What was written, in pieces."""
        ...


class GroupWriter:
    """Puts tables together to groups of rows of a good size."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.Table] = []
        self._bytes = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._bytes += table.nbytes
        if self._bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting, self._bytes = [], 0


class Parquet:
    name = "parquet"
    suffix = ".parquet"

    def table(self, view: View, rows: list[dict[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=view.schema)

    @contextmanager
    def writing(self, file: BinaryIO, view: View) -> Iterator[Sink]:
        with parquet_writing(file, view.schema) as sink:
            yield sink

    def tables(self, file: BinaryIO, view: View) -> Iterator[pa.Table]:
        for batch in pq.ParquetFile(file).iter_batches(READ_ROWS):
            yield fitted(pa.Table.from_batches([batch]), view.schema)


@contextmanager
def parquet_writing(file: BinaryIO, schema: pa.Schema) -> Iterator[GroupWriter]:
    with pq.ParquetWriter(file, schema, compression=COMPRESSION) as writer:
        groups = GroupWriter(writer)
        yield groups
        groups.flush()


class LineWriter:
    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        for line in table[LINE]:
            self._file.write(line.as_py())


class JsonLines:
    name = "jsonl"
    suffix = ".jsonl.gz"

    def table(self, view: View, rows: list[dict[str, Any]]) -> pa.Table:
        return _lines(
            json.dumps(view.line(row), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            for row in rows
        )

    @contextmanager
    def writing(self, file: BinaryIO, view: View) -> Iterator[Sink]:
        # Without name and time, so that the same rows give the same bytes.
        with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
            yield LineWriter(packed)

    def tables(self, file: BinaryIO, view: View) -> Iterator[pa.Table]:
        with gzip.GzipFile(fileobj=file, mode="rb") as packed:
            lines: list[bytes] = []
            for line in io.BufferedReader(packed):
                lines.append(line)
                if len(lines) == READ_ROWS:
                    yield _lines(lines)
                    lines = []
            if lines:
                yield _lines(lines)


def _lines(lines: Any) -> pa.Table:
    return pa.table({LINE: pa.array(lines, pa.large_binary())})


FORMATS: dict[str, RowFormat] = {format.name: format for format in (Parquet(), JsonLines())}
