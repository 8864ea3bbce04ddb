"""Recognises files that are no text by their first bytes, and says what to do with them."""

from __future__ import annotations

import re

CSV = "save it as CSV (in UTF-8) and publish that"
UNPACK = "unpack it first, or pack it with gzip or zstd"
CONVERT = "write it as JSON lines or CSV and publish that"
# By the bytes that such files begin with.
SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Office file (.xls, .doc)", CSV),
    (b"BZh", "bzip2", UNPACK),
    (b"\xfd7zXZ\x00", "xz", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", UNPACK),
    (b"Rar!\x1a\x07", "RAR", UNPACK),
    (b"\x04\x22\x4d\x18", "lz4", UNPACK),
    (b"\xff\x06\x00\x00sNaPpY", "snappy", UNPACK),
    (b"PAR1", "Parquet", CONVERT),
    (b"Obj\x01", "an Avro file", CONVERT),
    (b"ORC", "ORC", CONVERT),
    (b"ARROW1", "Arrow", CONVERT),
    (b"SQLite format 3\x00", "an SQLite database", CONVERT),
    (b"\x89HDF\r\n\x1a\n", "HDF5", CONVERT),
    (b"%PDF-", "a PDF", "publish the data that it was made from"),
    (b"{\\rtf", "rich text (RTF)", "save it as plain text: CSV or JSON lines"),
    (b"\x89PNG", "a picture", "publish text"),
    (b"\xff\xd8\xff", "a picture", "publish text"),
    (b"GIF8", "a picture", "publish text"),
    (b"\x7fELF", "a program", "publish text"),
)
ZIP = b"PK\x03\x04"
WORKBOOK = (b"[Content_Types].xml", b"xl/", b"_rels/.rels")
OPEN_DOCUMENT = b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet"
HTML = re.compile(r"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S)
XML = re.compile(r"\s*<(\?xml|!--|[A-Za-z][\w:.-]*[\s>/])")


def binary(head: bytes) -> tuple[str, str] | None:
    """What the file is and what to do, if it is none of text and not packed."""
    if head.startswith(ZIP):
        if OPEN_DOCUMENT in head:
            return "an OpenDocument sheet (.ods)", CSV
        if any(name in head for name in WORKBOOK):
            return "an Excel workbook (.xlsx)", CSV
        return "a zip archive", UNPACK
    for signature, what, advice in SIGNATURES:
        if head.startswith(signature):
            return what, advice
    if head[257:262] == b"ustar":
        return "a tar archive", UNPACK
    return None


def markup(head: str) -> tuple[str, str] | None:
    """What the text is and what to do, if it is HTML or XML."""
    if HTML.match(head):
        return (
            "HTML",
            "it may be the page of an error or a sign-in: look at it, then fetch the data itself",
        )
    return ("XML", CONVERT) if XML.match(head) else None
