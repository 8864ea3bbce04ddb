"""The lines of a file, of bounded length, which can be read again."""

from __future__ import annotations

import io
from typing import BinaryIO

from reviewmesh.cli.sources import rows

QUOTE = b'"'


class PhysicalLines:
    """Lines, the number of the last one, and a way back.

    A line longer than a row may be is cut. Whether its quotes are even or odd in number stays so.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._again = io.BytesIO()
        self.number = 0

    def read(self) -> bytes:
        """The next line; empty at the end."""
        line = self._again.readline() or self._from_file()
        self.number += bool(line)
        return line

    def unread(self, lines: bytes) -> None:
        """They were read last, and are read again."""
        self.number -= lines.count(b"\n") + (not lines.endswith(b"\n") and bool(lines))
        again, end = self._again, self._again.tell()
        if end >= len(lines) and again.getbuffer()[end - len(lines) : end] == lines:
            again.seek(end - len(lines))
        else:
            self._again = io.BytesIO(lines + again.read())

    def peeked(self, count: int) -> list[bytes]:
        """The next lines, at most so many, which are read again."""
        found: list[bytes] = []
        before = self._again.tell()
        while len(found) < count and (line := self.read()):
            found.append(line)
            if len(line) > rows.MAX_ROW_BYTES:
                break
        self.number -= len(found)
        self._again.seek(before)
        if sum(map(len, found)) > len(self._again.getbuffer()) - before:
            self._again = io.BytesIO(b"".join(found))
        return found

    def _from_file(self) -> bytes:
        most = rows.MAX_ROW_BYTES
        line = self._file.readline(most + 1)
        if len(line) <= most or line.endswith(b"\n"):
            return line
        quotes = line[most:].count(QUOTE)
        while rest := self._file.readline(most + 1):
            quotes += rest.count(QUOTE)
            if rest.endswith(b"\n"):
                break
        # One byte too many says that the line is too long.
        return line[:most] + (QUOTE if quotes % 2 else b" ")
