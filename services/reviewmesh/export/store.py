"""The folder that an export writes to: on this machine, or wherever fsspec has a driver for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from reviewmesh.export.errors import AnotherExport, ExportEnds

DRAFTS = "_export/drafts"
"""Of files of this machine that get their names in one step."""


class Store:
    """Files by their paths within one folder, with `/` between the parts."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        try:
            # Listings that a driver keeps would hide what another run wrote.
            fs, root = fsspec.core.url_to_fs(folder, use_listings_cache=False)
        except ImportError as error:
            raise ExportEnds(f"{folder}: {error}") from error
        except ValueError as error:
            raise ExportEnds(f"{folder}: {error}; expected a folder or a URL of fsspec") from error
        self._fs: Any = fs
        self._root = root.rstrip("/")
        self._local = isinstance(fs, LocalFileSystem)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A new file, which lasts once this returns. Nobody reads it until it is named."""
        full = self._full(path)
        if self._local:
            self._fs.makedirs(os.path.dirname(full), exist_ok=True)
        file = self._fs.open(full, "wb")
        try:
            yield cast(BinaryIO, file)
        except BaseException:
            # A driver would make a whole object of a part when it is closed.
            with suppress(Exception):
                file.discard()
            raise
        file.close()
        if self._local:
            _settle(full)
            _settle(os.path.dirname(full))

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        """Raises FileNotFoundError."""
        with self._fs.open(self._full(path), "rb") as file:
            yield cast(BinaryIO, file)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file in one step; False where it exists already, or another run cleared up."""
        full = self._full(path)
        if not self._local:
            try:
                self._fs.pipe_file(full, content, mode="create")
            except FileExistsError:
                return False
            return True
        draft = self._draft(full, content)
        try:
            os.link(draft, full)
        except (FileExistsError, FileNotFoundError):
            return False
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft)
        _settle(os.path.dirname(full))
        return True

    def replace(self, path: str, content: bytes) -> None:
        """Write a file in one step, whatever was there. Raises AnotherExport."""
        full = self._full(path)
        if not self._local:
            self._fs.pipe_file(full, content)
            return
        try:
            os.replace(self._draft(full, content), full)
        except FileNotFoundError:
            # Another run cleared the draft away.
            raise AnotherExport(self.folder) from None
        _settle(os.path.dirname(full))

    def read(self, path: str) -> bytes | None:
        """The content; None where there is no such file."""
        try:
            return cast(bytes, self._fs.cat_file(self._full(path)))
        except FileNotFoundError:
            return None

    def list(self, path: str) -> list[str]:
        """Every file below, by its path within the folder."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._full(path))
        except FileNotFoundError:
            return []
        return [str(name)[len(self._root) + 1 :] for name in found]

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _draft(self, full: str, content: bytes) -> str:
        draft = self._full(f"{DRAFTS}/{uuid.uuid4().hex}")
        for path in (full, draft):
            self._fs.makedirs(os.path.dirname(path), exist_ok=True)
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return draft


def _settle(path: str) -> None:
    """Have the disk hold a file, or the names of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
