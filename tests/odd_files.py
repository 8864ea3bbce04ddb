"""Files as people have them: forms, encodings, packings and columns, all with made-up text."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from dataclasses import dataclass

from backports import zstd

GOOD = [
    {"review_id": "o-1", "text": "Anna at the desk was great.", "stars": 5},
    {"review_id": "o-2", "text": "Zu spät, zu laut — nie wieder! 🙁", "stars": 1.5},
    {"review_id": "o-3", "text": "部屋がきれいでした", "stars": None},
]
LINES = "".join(json.dumps(review, ensure_ascii=False) + "\n" for review in GOOD)
TABLE = (
    "review_id,text,stars\n"
    "o-1,Anna at the desk was great.,5\n"
    'o-2,"Zu spät, zu laut — nie wieder! 🙁",1.5\n'
    "o-3,部屋がきれいでした,\n"
)
SEMICOLONS = "review_id;text;stars\no-1;Anna, at the desk;4,5\no-2;Zu laut;1\n"
TABS = "review_id\ttext\tstars\no-1\tAnna, at the desk\t5\no-2\tZu laut\t1\n"
WESTERN = "review_id,text\no-1,Très bien à café\no-2,Größer\no-3,naïf\n"


@dataclass(frozen=True)
class OddFile:
    """A file, how it is published, and what comes of it."""

    name: str
    content: bytes
    options: tuple[str, ...] = ()
    published: int = 0
    refused: int = 0
    says: str = ""
    """What standard error says, as a regular expression."""
    whole: bool = False
    """Whether the file is refused as a whole."""

    @property
    def code(self) -> int:
        """The command's exit code."""
        return int(self.whole or self.refused > 0 or "cut short" in self.name)


def _workbook() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


def _sheet() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("reviews.csv", TABLE)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("reviews.csv")
        member.size = len(TABLE.encode())
        archive.addfile(member, io.BytesIO(TABLE.encode()))
    return file.getvalue()


def _taken(
    name: str, content: bytes | str, *options: str, rows: int = 3, says: str = ""
) -> OddFile:
    data = content.encode() if isinstance(content, str) else content
    return OddFile(name, data, options, published=rows, says=says)


def _refused(name: str, content: bytes | str, says: str, *options: str) -> OddFile:
    data = content.encode() if isinstance(content, str) else content
    return OddFile(name, data, options, says=says, whole=True)


def _partly(
    name: str, content: bytes | str, published: int, refused: int, says: str, *options: str
) -> OddFile:
    data = content.encode() if isinstance(content, str) else content
    return OddFile(name, data, options, published, refused, says)


FORMS = [
    _taken("json lines", LINES),
    _taken("json lines of windows", "\ufeff" + LINES.replace("\n", "\r\n")),
    _taken("json lines without a last line break", LINES.rstrip()),
    _taken("json lines with blank lines", "\n\n" + LINES.replace("\n", "\n \n")),
    _taken("a json array", json.dumps(GOOD)),
    _taken("an indented json array", json.dumps(GOOD, indent=2, ensure_ascii=False)),
    _taken("indented objects", "\n".join(json.dumps(review, indent=4) for review in GOOD)),
    _taken("two arrays", json.dumps(GOOD[:2]) + "\n" + json.dumps(GOOD[2:])),
    _taken("csv", TABLE),
    _taken("csv of excel", "\ufeff" + TABLE.replace("\n", "\r\n")),
    _taken("csv with semicolons", SEMICOLONS, rows=2, says="comma is taken as the decimal point"),
    _taken("csv that says its separator", "sep=;\r\n" + SEMICOLONS, rows=2),
    _taken("csv with bars", TABS.replace("\t", "|"), rows=2),
    _taken("csv of an old mac", TABLE.replace("\n", "\r")),
    _taken("csv with line breaks in cells", 'text,stars\n"one\ntwo\n\nthree",4\nfour,3\n', rows=2),
    _taken("csv with doubled quotes", 'text,stars\n"she said ""hi"", twice",4\n', rows=1),
    _taken("csv with one column", 'text\n"one, two"\nthree\n', rows=2),
    _taken("a sheet's empty columns and rows", "text,stars,,\nfine,4,,\n,,,\nbad,1,,\n", rows=2),
    _taken("tsv", TABS, rows=2),
    _taken("tsv with a loose quote", 'text\tstars\n"so nice\t5\n', "--unquoted", rows=1),
]
ENCODINGS = [
    _taken("utf-16 of excel", b"\xff\xfe" + TABS.encode("utf-16-le"), rows=2, says="UTF-16"),
    _taken("utf-16, big-endian", b"\xfe\xff" + LINES.encode("utf-16-be")),
    _taken("utf-16 without a mark", LINES.encode("utf-16-le")),
    _taken("utf-16 as declared", TABLE.encode("utf-16-le"), "--encoding", "utf-16"),
    _taken("utf-32", b"\xff\xfe\x00\x00" + LINES.encode("utf-32-le")),
    _taken("cp1252 as declared", WESTERN.encode("cp1252"), "--encoding", "cp1252"),
    _taken("latin-1 as declared", WESTERN.encode("latin-1"), "--encoding=latin-1"),
    _taken(
        "shift_jis as declared",
        "text\n部屋\nきれい\n".encode("shift_jis"),
        "--encoding",
        "shift_jis",
        rows=2,
    ),
    _refused("cp1252 undeclared", WESTERN.encode("cp1252"), "expected UTF-8.*--encoding cp1252"),
    _refused("utf-8 declared as utf-16", "\ufeff" + TABLE, "mark of UTF-8", "--encoding", "utf-16"),
    _partly(
        "one byte of another encoding",
        LINES.encode() + b'{"text": "caf\xe9"}\n',
        3,
        1,
        "line 4: expected UTF-8, got the byte 0xe9",
    ),
    _partly(
        "shift_jis with a broken byte",
        "text\n部屋\n".encode("shift_jis") + b"\xff\xff\n",
        1,
        1,
        "line 3: expected text in shift_jis",
        "--encoding",
        "shift_jis",
    ),
]
PACKED = [
    _taken("gzip", gzip.compress(LINES.encode()), says="^$|published"),
    _taken(
        "gzip in two members",
        gzip.compress(LINES[:80].encode()) + gzip.compress(LINES[80:].encode()),
    ),
    _taken(
        "gzip of utf-16",
        gzip.compress(b"\xff\xfe" + TABS.encode("utf-16-le")),
        rows=2,
        says="TSV in UTF-16-LE, packed with gzip",
    ),
    _refused("gzip twice", gzip.compress(gzip.compress(LINES.encode())), "gzip in gzip"),
    _refused("gzip of a workbook", gzip.compress(_workbook()), r"Excel workbook \(.xlsx\) in gzip"),
    _refused("gzip in name only", b"\x1f\x8b" + b"junk" * 20, "expected gzip.*copied whole"),
]
FOREIGN = [
    _refused("xlsx", _workbook(), r"Excel workbook \(.xlsx\); save it as CSV"),
    _refused("xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), r"\(.xls, .doc\)"),
    _refused("ods", _sheet(), r"\(.ods\); save it as CSV"),
    _refused("zip", _zip(), "a zip archive; unpack it"),
    _refused("tar", _tar(), "a tar archive; unpack it"),
    _refused("bzip2", bz2.compress(LINES.encode()), "got bzip2; unpack it"),
    _refused("xz", lzma.compress(LINES.encode()), "got xz; unpack it"),
    _refused("parquet", b"PAR1" + bytes(100) + b"PAR1", "got Parquet; write it as JSON lines"),
    _refused("avro", b"Obj\x01\x04\x14avro.codec", "an Avro file"),
    _refused("sqlite", b"SQLite format 3\x00" + bytes(100), "an SQLite database"),
    _refused("pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "got a PDF"),
    _refused("png", b"\x89PNG\r\n\x1a\n" + bytes(30), "got a picture"),
    _refused("rtf", r"{\rtf1\ansi nice place}", "RTF"),
    _refused("a program", b"\x7fELF" + bytes(range(256)), "a program"),
    _refused("random bytes", bytes((i * 167 + 13) % 256 for i in range(4000)), "got binary data"),
    _refused("html", "\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "got HTML"),
    _refused("xml", '<?xml version="1.0"?><reviews><r>nice</r></reviews>', "got XML"),
    _refused("python's dicts", "{'review_id': 'o-1', 'text': 'fine'}\n", "Python's own notation"),
    _refused("prose", "Dear sirs,\nthe room was fine.\n", "a column with the review's text"),
    _refused("one line of prose", "The room was fine.\n", "got text that begins with 'The room"),
]
COLUMNS = [
    _taken(
        "numeric ids and text stars",
        '{"review_id": 7, "text": "t", "stars": "5"}\n',
        rows=1,
        says=r"review_id: numbers are taken as text \(1 row\)",
    ),
    _taken(
        "headers of people",
        "Review ID,TEXT,Stars\no-1,fine,4\n",
        rows=1,
        says="column 'Review ID' is taken as review_id",
    ),
    _taken(
        "mapped columns",
        "id,body,when\n1,fine,1672913472\n",
        "--map",
        "id=review_id",
        "--map",
        "body=text",
        "--map",
        "when=created_at:s",
        rows=1,
    ),
    _taken(
        "parts of objects",
        '{"a": {"b": ["fine"]}, "n": 1}\n',
        "--map",
        "a.b.0=text",
        "--rest",
        "drop",
        rows=1,
    ),
    _taken("others as attributes", "text,floor\nfine,3\n", "--rest", "attributes", rows=1),
    _taken(
        "an id of several columns",
        "shop,day,text\n7,2026-01-02,fine\n",
        "--id-from",
        "shop,day",
        rows=1,
    ),
    _refused(
        "no column of text", "id,stars\n1,5\n", "a column with the review's text.*'id', 'stars'"
    ),
    _refused("a column that nobody knows", "text,Floor\nfine,3\n", "'Floor': expected fields"),
    _refused("a column twice", "text,stars,stars\nfine,3,4\n", "each column once, got 'stars'"),
    _refused(
        "two columns for a field",
        "text,body\nfine,x\n",
        "text: expected one column",
        "--map",
        "body=text",
    ),
    _refused(
        "a mapped column that is not there",
        "text\nfine\n",
        "a column 'id', got 'text'",
        "--map",
        "id=review_id",
    ),
]
ROWS = [
    _partly(
        "a loose quote",
        'text,stars,a,b\n"so "nice",5,,\nfine,4,,\n',
        1,
        1,
        "line 2: expected a separator after the quote",
        "--rest",
        "drop",
    ),
    _partly(
        "a quote that nothing closes",
        'text,stars\nfine,4\n"so nice,5\n',
        1,
        1,
        "line 3: expected a quote that closes the cell",
    ),
    _partly("cells too many", "text,stars\nfine, really,4\nbad,1\n", 1, 1, "expected 2 cells"),
    _partly("no text", "text,stars\n,4\nbad,1\n", 1, 1, "line 2: text: expected the review's"),
    _partly("stars out of range", "text,stars\nfine,10\nbad,1\n", 1, 1, "stars from 1 to 5"),
    _partly(
        "a broken item of an array",
        '[{"text": "a"}, {"text": }, {"text": "b"}, 7]',
        2,
        2,
        "item 2: expected a review as JSON",
    ),
    _partly(
        "a time that looks like seconds",
        '{"text": "a", "created_at": 1672913472}\n',
        0,
        1,
        "looks like seconds; map them with --map COLUMN=created_at:s",
    ),
    _partly(
        "a row of megabytes",
        '{"text": "' + "x" * 9_000_000 + '"}\n{"text": "b"}\n',
        1,
        1,
        "line 1: expected a row of at most",
    ),
    _partly(
        "a row of megabytes in a table",
        'text,stars\nfine,4\n"' + "so nice, so quiet, so near,\n" * 400_000 + '",5\nbad,1\n',
        2,
        1,
        "lines 3 to 400003: expected a row of at most",
    ),
    _partly(
        "a quote that the rest of the table does not close",
        'review_id,text,stars\n1,fine,4\n2,"so nice,5\n'
        + "".join(f"{number},fine,4\n" for number in range(3, 40)),
        38,
        1,
        "line 3: expected a quote that closes the cell, got other rows",
    ),
    _partly(
        "an array with a quote too few",
        json.dumps(GOOD).replace('great."', "great."),
        2,
        1,
        "item 1: expected a review as JSON",
    ),
    _partly(
        "zeros at the end, as of a crash",
        TABLE.encode() + bytes(20_000),
        3,
        1,
        "line 5: expected 3 cells",
    ),
    _partly("a review too large", '{"text": "' + "x" * 200_000 + '"}\n', 0, 1, "at most 100,000"),
]
CUT = [
    _partly("an array cut short", json.dumps(GOOD)[:-30], 2, 1, "before it is closed.*--skip 3"),
    _partly("gzip cut short", gzip.compress(LINES.encode())[:-6], 3, 0, "cut short.*--skip 3"),
]
EMPTY = [
    _taken("empty", b"", rows=0, says="0 refused"),
    _taken("blanks", b" \n\n\r\n", rows=0, says="0 refused"),
    _taken("a header alone", "review_id,text\n", rows=0, says="0 refused"),
    _taken("an empty array", "[]", rows=0, says="0 refused"),
]
ZSTD = [
    _taken("zstd", zstd.compress(TABLE.encode()), says="CSV, packed with zstd"),
    _taken(
        "zstd in two frames",
        zstd.compress(LINES[:80].encode()) + zstd.compress(LINES[80:].encode()),
    ),
    _refused("zstd cut short", zstd.compress(LINES.encode())[:-2], "expected zstd.*copied whole"),
]
FILES = [*ZSTD, *FORMS, *ENCODINGS, *PACKED, *FOREIGN, *COLUMNS, *ROWS, *CUT, *EMPTY]
