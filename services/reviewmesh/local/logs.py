"""The logs of an embedded mesh's processes: their ends, and what is written to them from now on.

supervisord rotates them: the file gets another name and a new one takes its place.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Self

from reviewmesh.local.paths import StackPaths
from reviewmesh.local.supervision import LOG_BACKUPS

LOOK_EVERY_S = 0.2
# A line of a log that is longer is read in parts.
LONGEST_LINE = 256 * 1024


def logged(paths: StackPaths) -> list[str]:
    """The names of the processes that have a log, also of a mesh that is stopped."""
    return sorted(log.stem for log in paths.logs.glob("*.log") if log != paths.supervisor_log)


def last_lines(log: Path, lines: int) -> list[str]:
    """The last lines of a log, those before its last rotations included."""
    kept: deque[str] = deque(maxlen=lines)
    older = [log.with_name(f"{log.name}.{number}") for number in range(LOG_BACKUPS, 0, -1)]
    for part in (*older, log):
        try:
            with part.open("rb") as file:
                kept.extend(_lines(file))
        except FileNotFoundError:
            continue
    return list(kept)


class Follower:
    """What is written to a log from now on; a line that is not whole yet waits."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._file: BinaryIO | None = None
        self._begun = b""
        self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def lines(self) -> Iterator[str]:
        """Those that came since the last call."""
        if self._file is not None:
            yield from self._rest_of(self._file)
        if self._was_replaced():
            # Written between the two looks, before it was renamed.
            if self._file is not None:
                yield from self._rest_of(self._file)
                self._file.close()
            self._open()
            if self._file is not None:
                yield from self._rest_of(self._file)

    def _rest_of(self, file: BinaryIO) -> Iterator[str]:
        while piece := file.readline(LONGEST_LINE):
            self._begun += piece
            if piece.endswith(b"\n") or len(self._begun) >= LONGEST_LINE:
                yield _text(self._begun)
                self._begun = b""

    def _was_replaced(self) -> bool:
        try:
            there = self._log.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        ours = os.fstat(self._file.fileno())
        return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)

    def _open(self) -> None:
        try:
            self._file = self._log.open("rb")
        except FileNotFoundError:
            self._file = None


def follow(logs: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Name and line, from several logs, for ever."""
    followers = {name: Follower(log) for name, log in logs.items()}
    try:
        while True:
            for name, follower in followers.items():
                for line in follower.lines():
                    yield name, line
            time.sleep(LOOK_EVERY_S)
    finally:
        for follower in followers.values():
            follower.__exit__()


def _lines(file: BinaryIO) -> Iterator[str]:
    while piece := file.readline(LONGEST_LINE):
        yield _text(piece)


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r\n")
