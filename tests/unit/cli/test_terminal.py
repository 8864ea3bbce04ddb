"""Text of strangers reaches a terminal as text, and lines of JSON stay JSON."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from reviewmesh.cli.render import enriched_line
from reviewmesh.cli.terminal import PlainConsole, json_text, shortened
from reviewmesh.query.values import as_json, iso
from reviewmesh_kit.printable import plain

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
NASTY = [
    "[/b] closing",
    "[red]hotel[/red]",
    ":smile: [link=http://example.org]x[/link]",
    "a\x1b[2J\x1b]0;title\x07",
    "\x9b31mred",
    "\x7f\x08\x85",
    f"abc{BIDI}def",
    "line\u2028and\u2029paragraph",
    "half \ud83d of a pair",
    "one line\r\nand another",
]


def printed(what: object) -> str:
    console = PlainConsole()
    console.file = io.StringIO()
    console.print(what)
    return console.file.getvalue()


def steers(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in BIDI]


@pytest.mark.parametrize("text", NASTY)
def test_nothing_printed_steers_the_terminal_or_is_read_as_markup(text: str) -> None:
    table = Table("id", box=None)
    table.add_row(text)
    record = {
        "sentiment": {"label": text},
        "text": text,
        "topics": [{"id": text}],
        "entities": [{"text": text, "label": text}],
        "complete": False,
        "tasks": {text: {"status": text}},
    }
    for what in (text, table, enriched_line(record)):
        shown = printed(what)
        assert set(steers(shown)) <= {"\n"}
    assert printed(enriched_line(record)).count("\n") == 1
    assert not steers(plain(text)) and not steers(shortened(text))


@pytest.mark.parametrize("text", ["[/b] closing", "[red]hotel[/red]", ":smile:"])
def test_markup_is_shown_whole(text: str) -> None:
    table = Table("id", box=None)
    table.add_row(text)
    assert text in printed(table)
    assert text in printed(text)


@pytest.mark.parametrize("text", ["👩‍👩‍👧 family", "🫩 new", "नमस्ते", "שלום", "naïve\u0301", "1️⃣"])
def test_what_people_write_is_left_as_it_is(text: str) -> None:
    assert plain(text) == text
    assert shortened(text) == text
    assert text in json_text(text)


@given(st.text())
def test_json_says_the_same_and_steers_nothing(text: str) -> None:
    line = json_text({"text": text})
    assert json.loads(line) == {"text": text}
    assert not steers(line)


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_every_timestamp_that_a_record_can_hold_is_shown(milliseconds: int) -> None:
    schema = {"type": "long", "logicalType": "timestamp-millis"}
    shown = as_json(schema, milliseconds)
    assert str(shown) == iso(milliseconds)
    assert shown == milliseconds or shown.endswith("Z")


def test_timestamps_within_the_calendar_are_iso_8601() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(253_402_300_799_999) == "9999-12-31T23:59:59.999Z"
    assert iso(253_402_300_800_000) == "253402300800000"


def test_a_number_that_json_has_not_is_text() -> None:
    values = [as_json("double", number) for number in (float("nan"), float("inf"), 4.5)]
    assert json.loads(json_text(values)) == ["nan", "inf", 4.5]
