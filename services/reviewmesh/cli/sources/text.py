"""The bytes of a file as UTF-8, whatever encoding they are in."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO

from reviewmesh.cli.sources.errors import FileRefused

# The longer ones first: UTF-32's little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CHUNK = 64 * 1024
# Half a surrogate pair, which no text holds: marks a byte that is none in the encoding.
NO_TEXT = "\udcff"
NO_TEXT_BYTES = NO_TEXT.encode("utf-8", "surrogatepass")


def _marked(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return NO_TEXT, error.end


codecs.register_error("reviewmesh-marked", _marked)


def encoding_named(name: str) -> str:
    """Python's name of an encoding. Raises FileRefused if there is none such."""
    try:
        found = codecs.lookup(name)
        # Of codecs such as base64, which make no text.
        "".encode(found.name)
    except (LookupError, UnicodeError, ValueError):
        raise FileRefused(
            f"expected the name of an encoding such as utf-16, cp1252 or shift_jis, got {name!r}"
        ) from None
    return found.name


def encoding_of(head: bytes, declared: str | None) -> tuple[str, int]:
    """The encoding of a file that begins so, and the length of its byte order mark."""
    marked = next(((name, len(mark)) for mark, name in MARKS if head.startswith(mark)), None)
    if declared is None:
        return marked or (_unmarked(head), 0)
    wanted = encoding_named(declared)
    if marked is None:
        # Without a mark these are big-endian by the standard, and little-endian in practice.
        return {"utf-16": _unmarked(head, "utf-16-le"), "utf-32": "utf-32-le"}.get(
            wanted, wanted
        ), 0
    name, length = marked
    if not name.startswith(wanted.removesuffix("-sig").replace("_", "-")):
        raise FileRefused(
            f"expected {declared} as declared, got the byte order mark of {name.upper()}; leave "
            "--encoding away"
        )
    return name, length


def _unmarked(head: bytes, default: str = "utf-8") -> str:
    """Text in UTF-16 or UTF-32 is told by the zeros of its ASCII characters."""
    sample = head[:512]
    if len(sample) < 4:
        return default
    if sample[:4].count(0) == 3 and sample[0] != 0:
        return "utf-32-le"
    if sample[:4].count(0) == 3 and sample[3] != 0:
        return "utf-32-be"
    even, odd = sample[::2], sample[1::2]
    # Few reviews are all ASCII, but their names of fields and separators are.
    if odd[:2].count(0) == 2 and even.count(0) == 0 and odd.count(0) * 4 > len(odd):
        return "utf-16-le"
    if even[:2].count(0) == 2 and odd.count(0) == 0 and even.count(0) * 4 > len(even):
        return "utf-16-be"
    return default


class Utf8(io.RawIOBase):
    """A file in another encoding as UTF-8; bytes that are none of it become NO_TEXT."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("reviewmesh-marked")
        self._ready = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            chunk = read_some(self._file, CHUNK)
            self._ended = not chunk
            text = self._decoder.decode(chunk, final=self._ended)
            self._ready = memoryview(text.encode("utf-8", "surrogatepass"))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


class Unread(io.RawIOBase):
    """A file of which a beginning was read already: that comes first."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = memoryview(head)
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._head:
            chunk = read_some(self._file, len(buffer))
            buffer[: len(chunk)] = chunk
            return len(chunk)
        count = min(len(buffer), len(self._head))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count


class LineFeeds(io.RawIOBase):
    """A file whose lines end with carriage returns alone, with line feeds in their place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = read_some(self._file, len(buffer)).replace(b"\r", b"\n")
        buffer[: len(chunk)] = chunk
        return len(chunk)


def read_some(file: BinaryIO, size: int) -> bytes:
    """What is there, at most `size` bytes, without waiting for more; empty at the end."""
    read1 = getattr(file, "read1", None)
    return bytes(read1(size) if read1 is not None else file.read(size) or b"")


def buffered(file: io.RawIOBase) -> BinaryIO:
    return io.BufferedReader(file, CHUNK)


def beginning(file: BinaryIO, until_line_of: bytes = b"\n", size: int = CHUNK) -> bytes:
    """The first bytes of a file, at least one line if there is one; does not wait for more."""
    head = read_some(file, size)
    while head and until_line_of not in head and len(head) < size:
        more = read_some(file, size - len(head))
        if not more:
            break
        head += more
    return head
