"""Unpacks gzip and zstd while reading: what a file unpacks to never lies in memory whole."""

from __future__ import annotations

import gzip
import sys
import zlib
from importlib.util import find_spec
from typing import BinaryIO, cast

from reviewmesh.cli.sources.errors import FileRefused

if sys.version_info >= (3, 14):
    from compression import zstd
elif find_spec("backports") and find_spec("backports.zstd"):
    from backports import zstd
else:
    zstd = None  # type: ignore[assignment]

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# What the decoder holds of a frame at most, 128 MiB: zstd's own default. A frame may ask for more.
WINDOW_LOG = 27
UNPACKING_ERRORS: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error, EOFError)
if zstd is not None:
    UNPACKING_ERRORS += (zstd.ZstdError,)


def packed_as(head: bytes) -> str | None:
    """`gzip` or `zstd`, by the first bytes of a file; None for others."""
    if head.startswith(GZIP):
        return "gzip"
    # Skippable frames may come first.
    if head.startswith(ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_"):
        return "zstd"
    return None


def unpacked(file: BinaryIO, packed: str) -> BinaryIO:
    """What the file unpacks to; reading it may raise UNPACKING_ERRORS."""
    if packed == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
    if zstd is None:
        raise FileRefused("expected gzip, got zstd; to read that, pip install backports-zstd")
    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    return cast(BinaryIO, zstd.ZstdFile(file, options=window))
