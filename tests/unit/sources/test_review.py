"""Rows that are read as reviews: what is no review says why, whatever it is."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.avro.codec import load_schema
from reviewmesh.cli.sources import rows
from reviewmesh.cli.sources.columns import Columns
from reviewmesh.cli.sources.errors import NoReview
from reviewmesh.cli.sources.json_rows import parsed
from reviewmesh.cli.sources.review import TakenAs, review_of
from reviewmesh.cli.sources.rows import bounded_lines, decoded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = [field["name"] for field in load_schema("review")["fields"]]


def parse(line: str, now_ms: int, notes: TakenAs | None = None) -> dict[str, Any]:
    return review_of(Columns().fields_of(parsed(line)), now_ms, (), notes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "expected a review as JSON, got 'nonsense'"),
        ("[1]", "expected a JSON object, got list"),
        ('{"stars": 4}', "text: "),
        ('{"text": "t", "starz": 4}', "'starz'"),
        ('{"text": "t", "stars": true}', "stars: "),
        ('{"text": "t", "review_id": ""}', "review_id: "),
        ('{"text": "t", "review_id": 1.5}', "review_id: expected text that is not empty, got 1.5"),
        ('{"text": "t", "review_id": "  "}', "expected a review_id, got an empty one"),
        ('{"text": "  "}', "expected a text with something to read"),
        ('{"text": 5}', "text: expected text, got 5"),
        ('{"text": "t", "stars": 7}', "expected stars from 1 to 5 or none, got 7"),
        ('{"text": "t", "stars": "five"}', "stars: expected a number, got 'five'"),
        ('{"text": "t", "stars": "5/5"}', "stars: expected a number, got '5/5'"),
        ('{"text": "t", "created_at": "yesterday"}', "created_at: "),
        ('{"text": "t", "attributes": {"a": [1]}}', "attributes, 'a': expected text"),
        ('{"text": "t", "attributes": [1]}', "attributes: expected names with text values"),
        ('{"text": "t", "stars": NaN}', "NaN"),
        ('{"text": "t", "stars": -Infinity}', "-Infinity"),
        ('{"text": "t", "stars": 1e999}', "stars: .* got inf"),
        ('{"text": "t", "stars": 1' + "0" * 400 + "}", "stars: "),
        ('{"text": "t", "stars": 1' + "0" * 5000 + "}", "a number of thousands of digits"),
        ('{"text": "t", "created_at": 1' + "0" * 4000 + "}", "created_at: .* nanoseconds"),
        ('{"text": ' + "[" * 100_000, "nested too deeply"),
        ('{"text": "a", "text": "b"}', "'text': expected once"),
        ('{"text": "a", "attributes": {"b": "c", "b": "d"}}', "'b': expected once"),
        (r'{"text": "half \ud83d here"}', "text: .* surrogate pair at character 6"),
        (r'{"text": "t", "review_id": "\udc00"}', "review_id: .* surrogate"),
        (r'{"text": "t", "attributes": {"\ud800": "x"}}', "attributes: .* surrogate"),
        (r'{"text": "t", "attributes": {"x": "\ud800"}}', "attributes, 'x': .* surrogate"),
    ],
)
def test_a_line_that_is_no_review_says_why(line: str, words: str) -> None:
    with pytest.raises(NoReview, match=words) as raised:
        parse(line, 0)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("created_at", "unit"),
    [
        (0, "looks like seconds"),
        (1_672_913_472, "looks like seconds"),
        (1_672_913_472_000_000, "looks like microseconds"),
        (1_672_913_472_000_000_000, "looks like nanoseconds"),
        (2**62, "looks like nanoseconds"),
        (-1, "got -1; write dates before"),
    ],
)
def test_a_time_of_another_unit_is_refused_by_its_name(created_at: int, unit: str) -> None:
    with pytest.raises(NoReview, match=unit):
        parse(json.dumps({"text": "t", "created_at": created_at}), 0)


@pytest.mark.parametrize(
    "created_at",
    [
        1_672_913_472.0,
        "16729134720000000",
        "Jan 5, 2023",
        "2023-02-30",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
    ],
)
def test_a_time_that_no_calendar_has_is_refused(created_at: object) -> None:
    with pytest.raises(NoReview, match="created_at: expected ISO 8601 or milliseconds"):
        parse(json.dumps({"text": "t", "created_at": created_at}), 0)


def test_times_are_kept_to_the_millisecond() -> None:
    def of(value: object) -> int:
        return int(parse(json.dumps({"text": "t", "created_at": value}), 7)["created_at"])

    assert of(1_672_913_472_123) == 1_672_913_472_123
    assert of("2023-01-05T10:11:12.123Z") == 1_672_913_472_123
    assert of("1970-01-01T01:00:01+01:00") == 1000
    with pytest.raises(NoReview, match="got -1"):
        of("1969-12-31T23:59:59.999Z")
    assert of("2023-01-05 10:11:12") == 1_672_913_472_000
    assert of("1672913472123") == 1_672_913_472_123
    assert of(None) == 7


def test_what_is_safe_is_taken_for_what_it_means_and_said() -> None:
    notes = TakenAs()
    row = {
        "review_id": 2**70,
        "business_id": 7,
        "text": "t",
        "stars": " 4.5 ",
        "created_at": "1672913472123",
        "attributes": {"floor": 3, "vip": True, "none": None},
    }
    review = parse(json.dumps(row), 0, notes)
    assert review["review_id"] == str(2**70)
    assert (review["business_id"], review["stars"]) == ("7", 4.5)
    assert review["created_at"] == 1_672_913_472_123
    assert review["attributes"] == {"floor": "3", "vip": "true"}
    assert parse('{"text": "t", "stars": "4,5"}', 0, notes)["stars"] == 4.5
    assert notes.of_rows == {
        "review_id: numbers are taken as text": 1,
        "business_id: numbers are taken as text": 1,
        "stars: text is taken as a number": 1,
        "stars: a comma is taken as the decimal point": 1,
        "created_at: text is taken as milliseconds since 1970": 1,
        "attributes: numbers, true and false are taken as text": 2,
    }


@given(JSON | st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_json_a_line_holds_it_is_a_review_or_says_why(content: object) -> None:
    try:
        review = parse(json.dumps(content), 0)
    except NoReview as error:
        str(error).encode()
        return
    assert set(review) == set(FIELDS)
    json.dumps(review, ensure_ascii=False, allow_nan=False).encode()


@given(st.binary(max_size=200))
def test_whatever_bytes_a_line_holds_it_is_text_or_says_why(line: bytes) -> None:
    try:
        decoded(line).encode()
    except NoReview as error:
        str(error).encode()


def test_a_line_of_another_encoding_says_so() -> None:
    with pytest.raises(NoReview, match=r"0xe9 at position 14.*--encoding"):
        decoded(b'{"text": "caf\xe9"}')


def test_a_line_of_any_length_costs_itself_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 10)
    lines = list(bounded_lines(io.BytesIO(b"short\n" + b"x" * 95 + b"\n" + b"y" * 10 + b"\nlast")))
    assert lines == [b"short\n", b"x" * 11, b"y" * 10 + b"\n", b"last"]
    with pytest.raises(NoReview, match="at most 10 bytes"):
        decoded(lines[1])
    assert decoded(lines[3]) == "last"


def test_what_is_missing_is_filled_in() -> None:
    review = parse('{"text": "t"}', 7)
    assert review["review_id"] is None
    assert (review["created_at"], review["source"], review["attributes"]) == (7, "cli", {})
