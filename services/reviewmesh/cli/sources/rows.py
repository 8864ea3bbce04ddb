"""Rows of a file: what each holds, where it is, or why it cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from reviewmesh.cli.sources.errors import NoReview
from reviewmesh.cli.sources.text import NO_TEXT_BYTES

# JSON may encode each byte of the largest review as an escape of six characters.
MAX_ROW_BYTES = 8 * 1024 * 1024
KEPT_OF_A_REFUSED = 2_000
UTF_8 = "utf-8"


@dataclass(slots=True)
class Row:
    """One row: its fields, or its problem."""

    number: int
    """Counted from 1: lines of JSON lines, else reviews. What `--skip` counts."""
    where: str
    content: dict[str, Any] | None = None
    """What it holds, as it is named there."""
    fields: dict[str, Any] | None = None
    """Those of a review."""
    problem: NoReview | None = None
    raw: str = ""
    """The beginning of what has no content."""


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, each cut at MAX_ROW_BYTES + 1; the rest of a longer one is skipped."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        rest = line
        while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_ROW_BYTES + 1)
        yield line


def decoded(line: bytes, encoding: str = UTF_8) -> str:
    """The text of a line, or of a row, of a file in this encoding. Raises NoReview."""
    if len(line) > MAX_ROW_BYTES:
        raise NoReview(f"expected a row of at most {MAX_ROW_BYTES:,} bytes, got a longer one")
    if encoding != UTF_8 and NO_TEXT_BYTES in line:
        raise NoReview(f"expected text in {encoding}, got bytes that are none")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise NoReview(
            f"expected UTF-8, got the byte 0x{line[error.start]:02x} at position "
            f"{error.start + 1}; if the file has another encoding, say which, such as "
            "--encoding cp1252"
        ) from error


def beginning_of(row: bytes | str) -> str:
    """What is kept of a row that cannot be read."""
    text = row[: KEPT_OF_A_REFUSED * 4]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return text[:KEPT_OF_A_REFUSED].strip()
