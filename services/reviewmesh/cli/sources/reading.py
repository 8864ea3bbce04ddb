"""Opens a file of reviews: finds out what it is, and gives its rows as fields of reviews."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from reviewmesh.cli.sources import foreign, tables
from reviewmesh.cli.sources.columns import Columns, listed
from reviewmesh.cli.sources.compression import UNPACKING_ERRORS, packed_as, unpacked
from reviewmesh.cli.sources.errors import FileBroken, FileRefused, NoReview, shown
from reviewmesh.cli.sources.json_rows import document_rows, line_rows
from reviewmesh.cli.sources.review import TakenAs
from reviewmesh.cli.sources.rows import UTF_8, Row
from reviewmesh.cli.sources.sites import Export, Site
from reviewmesh.cli.sources.text import (
    LineFeeds,
    Unread,
    Utf8,
    beginning,
    buffered,
    encoding_of,
)

MOST_BLANKS = 1024 * 1024
FIRST = 512
# Bytes that no text has: of C0 all but tab, line feed, form feed, carriage return and escape.
CONTROLS = bytes(set(range(32)) - {9, 10, 12, 13, 27}) + b"\x7f"
LEAST_BROKEN_LINES = 2
PYTHONS_DICT = re.compile(r"\s*\{\s*u?'")


@dataclass(frozen=True)
class Options:
    """What a command says about a file."""

    columns: Columns = field(default_factory=Columns)
    site: Site | None = None
    encoding: str | None = None
    unquoted: bool = False
    skip: int = 0


class Source:
    """A file of reviews: what it is, and its rows."""

    def __init__(self, file: BinaryIO, options: Options) -> None:
        """Reads the beginning. Raises FileRefused where the file holds no rows of reviews."""
        self.notes = TakenAs()
        self._options = options
        self._packed, plain, head = _unpacked(file)
        self._encoding, mark = encoding_of(head, options.encoding)
        head, text = self._as_utf8(head[mark:], plain)
        self.is_empty = not head.strip()
        self.kind = "nothing"
        self._rows: Iterator[Row] = iter(())
        if not self.is_empty:
            self.kind, self._rows = self._recognised(head, text)

    @property
    def words(self) -> str:
        """What the file is, for people."""
        named = self.kind + ("" if self._encoding == UTF_8 else f" in {self._encoding.upper()}")
        return named + (f", packed with {self._packed}" if self._packed else "")

    def rows(self) -> Iterator[Row]:
        """Each row with its fields as content, or with its problem. Raises FileBroken."""
        try:
            yield from self._rows
        except UNPACKING_ERRORS as error:
            raise FileBroken(
                f"the {self._packed} data is broken or cut short ({error or 'it ends early'})"
            ) from error

    def _as_utf8(self, head: bytes, plain: BinaryIO) -> tuple[bytes, BinaryIO]:
        """The beginning and the whole of the text."""
        file = buffered(Unread(head, plain))
        if self._encoding != UTF_8:
            file = buffered(Utf8(file, self._encoding))
        head = beginning(file)
        while not head.strip() and (more := beginning(file)):
            head += more
            if len(head) > MOST_BLANKS:
                raise FileRefused(f"{EXPECTED}, got {MOST_BLANKS:,} bytes of blanks")
        file = buffered(Unread(head, file))
        _refuse_binary(head)
        if b"\r" in head and b"\n" not in head and len(head) > head.index(b"\r") + 1:
            head = head.replace(b"\r", b"\n")
            file = buffered(LineFeeds(file))
        if self._encoding == UTF_8 and self._options.encoding is None:
            _refuse_other_encoding(head)
        return head, file

    def _recognised(self, head: bytes, file: BinaryIO) -> tuple[str, Iterator[Row]]:
        text = head.decode("utf-8", "replace").lstrip()
        if what := foreign.markup(text):
            raise FileRefused(f"{EXPECTED}, got {what[0]}; {what[1]}")
        skip, options = self._options.skip, self._options
        path: Sequence[str] = ()
        if text[0] in "{[":
            path = self._path(text)
        if text[0] == "[":
            rows = document_rows(file, self._encoding, skip, path)
            return "a JSON array", self._json_fields(rows)
        if text[0] == "{":
            first, ends, _rest = text.partition("\n")
            if PYTHONS_DICT.match(first):
                raise FileRefused(
                    f"{EXPECTED}, got Python's own notation, {shown(first)}; write it with "
                    "json.dumps"
                )
            # An object over several lines begins with one that is none.
            if ends and not _is_whole(first) and _opens_only(first):
                rows = document_rows(file, self._encoding, skip, path)
                return "JSON", self._json_fields(rows)
            rows = line_rows(file, self._encoding, skip, path)
            return "JSON lines", self._json_fields(rows)
        return self._table(text, file, options)

    def _path(self, text: str) -> Sequence[str]:
        """Where the site's reviews are, if the document begins with a name on the way there."""
        if self._options.site is None:
            return ()
        for path in self._options.site.paths:
            if re.search(rf'"{re.escape(path[0])}"\s*:\s*[\[{{]', text):
                return path
        return ()

    def _json_fields(self, rows: Iterator[Row]) -> Iterator[Row]:
        site = self._options.site
        known: dict[tuple[str, ...], Columns] = {}
        for row in rows:
            if row.content is not None:
                content: Mapping[str, Any] = row.content
                columns = self._options.columns
                export = site.export_of(tuple(content)) if site else None
                try:
                    if site is not None:
                        if export is None:
                            raise _not_of_site(site, tuple(content))
                        if export.told_by not in known:
                            known[export.told_by] = export.columns(columns)
                        columns, content = known[export.told_by], export.prepared(content)
                    row.fields = columns.fields_of(content)
                except NoReview as problem:
                    row.problem = problem
            yield row

    def _table(self, text: str, file: BinaryIO, options: Options) -> tuple[str, Iterator[Row]]:
        first = text.partition("\n")[0]
        dialect = tables.dialect_of(first)
        header = text.split("\n")[1] if dialect.declared and "\n" in text else first
        names = [n.strip().strip('"') for n in header.strip().split(dialect.delimiter)]
        export = options.site.export_of(names) if options.site else None
        if options.unquoted or (export is not None and not export.quoted):
            dialect = replace(dialect, quoted=False)
        table = tables.Table(file, self._encoding, dialect)
        columns = options.columns
        if options.site is not None:
            export = export or options.site.export_of(table.columns)
            if export is None:
                raise FileRefused(str(_not_of_site(options.site, table.columns)))
            columns = _of_header(export, columns, table.columns)
        elif len(table.columns) == 1 and not columns.knows(table.columns[0]):
            raise FileRefused(
                f"{EXPECTED}, got text that begins with {shown(first.strip())}; the first line of "
                "a table names its columns"
            )
        columns = columns.of_table(table.columns, self.notes)
        self.notes.all_is_text = True
        kind = tables.NAMES.get(dialect.delimiter, "CSV")
        return kind, _table_fields(table, columns, export, options.skip)


EXPECTED = "expected reviews as JSON lines, a JSON array, CSV or TSV, plain or in gzip or zstd"


def original_of(row: Row) -> dict[str, Any]:
    """What is written of a refused row, so that it can be mended and published again."""
    return dict(row.content) if row.content is not None else {"row": row.raw}


def _table_fields(
    table: tables.Table, columns: Columns, export: Export | None, skip: int
) -> Iterator[Row]:
    for row in table.rows(skip):
        if row.content is not None:
            content = row.content if export is None else export.prepared(row.content)
            try:
                row.fields = columns.fields_of(content)
            except NoReview as problem:
                row.problem = problem
        yield row


def _of_header(export: Export, others: Columns, header: Sequence[str]) -> Columns:
    """The export's columns as this header writes them; those that it lacks are left out."""
    written = {name.casefold(): name for name in header}
    own = {
        written[name.casefold()]: target
        for name, target in export.mapping.items()
        if name.casefold() in written
    }
    return replace(export, mapping=own).columns(others)


def _not_of_site(site: Site, names: Sequence[str]) -> NoReview:
    return NoReview(
        f"--site {site.name}: expected {site.wanted()}, got {listed(names)}",
    )


def _unpacked(file: BinaryIO) -> tuple[str | None, BinaryIO, bytes]:
    """How the file is packed, its content, and the beginning of that."""
    head = beginning(file)
    packed = packed_as(head)
    if what := foreign.binary(head):
        raise FileRefused(f"{EXPECTED}, got {what[0]}; {what[1]}")
    if packed is None:
        return None, file, head
    try:
        content = unpacked(buffered(Unread(head, file)), packed)
        head = beginning(content)
    except UNPACKING_ERRORS as error:
        raise FileRefused(
            f"expected {packed}, as the file begins, got data that is none ({error}); was it "
            "copied whole?"
        ) from error
    if packed_as(head):
        raise FileRefused(
            f"expected reviews in {packed}, got {packed_as(head)} in {packed}; unpack it once"
        )
    if what := foreign.binary(head):
        raise FileRefused(f"{EXPECTED}, got {what[0]} in {packed}; {what[1]}")
    return packed, content, head


def _refuse_binary(head: bytes) -> None:
    # Zeros at the end are what a crash leaves of a file that was being written.
    text = head.rstrip(b"\x00")
    if (head and not text) or _is_mostly_binary(text[:FIRST]) or _is_mostly_binary(text):
        raise FileRefused(
            f"{EXPECTED}, got binary data; if it is text in UTF-16 or UTF-32, say so with "
            "--encoding"
        )


def _is_mostly_binary(sample: bytes) -> bool:
    """More than one in fifty: a stray control character in a text is none."""
    return len(sample.translate(None, delete=CONTROLS)) * 50 < len(sample) * 49


def _refuse_other_encoding(head: bytes) -> None:
    """Text whose every character beyond ASCII is none of UTF-8."""
    broken, good = [], 0
    for line in head.splitlines():
        if line.isascii():
            continue
        try:
            line.decode()
            good += 1
        except UnicodeDecodeError as error:
            # The last one may be cut.
            if error.reason != "unexpected end of data":
                broken.append(line[error.start])
    if len(broken) >= LEAST_BROKEN_LINES and not good:
        raise FileRefused(
            f"expected UTF-8, got bytes such as 0x{broken[0]:02x} that are none of it; say the "
            "encoding, such as --encoding cp1252, or convert the file with iconv"
        )


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _opens_only(line: str) -> bool:
    """Whether nothing in the line is closed that it opens, as in indented JSON."""
    return bool(
        re.fullmatch(r'\s*\{\s*("[^"\\]*"\s*:\s*(\[|\{|"(?:[^"\\]|\\.)*",?|[\w.+-]+,?)?\s*)?', line)
    )
