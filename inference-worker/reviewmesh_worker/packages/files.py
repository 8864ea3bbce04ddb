"""Atomic, durable writes of files, and a lock between processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_ASK_EVERY_S: Final = 0.05


class LockTimeout(RuntimeError):
    """Another process held the lock until the timeout."""


@contextmanager
def locked(file: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a file; it is free again when this process ends. Raises LockTimeout."""
    deadline = time.monotonic() + timeout_s
    with file.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockTimeout(f"{file} was held for {timeout_s:g} s") from None
                time.sleep(_ASK_EVERY_S)
        yield


def replace_file(file: Path, text: str) -> None:
    """Write the file atomically: readers see the old content or all of the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            # mkstemp creates files for this user only; a worker may run as another one.
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        os.replace(draft, file)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    sync_folder(file.parent)


def append_line(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write(line + "\n")
        out.flush()
        os.fsync(out.fileno())


@contextmanager
def copied(source: Path, parent: Path) -> Iterator[Path]:
    """A copy of a folder under a temporary name, for the caller to rename.

    A copy that was not renamed is removed; a killed process leaves `.incoming-…`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=parent))
    try:
        folder = scratch / "copy"
        shutil.copytree(source, folder)
        for file in folder.rglob("*"):
            _sync(file)
        yield folder
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames into the folder durable."""
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
