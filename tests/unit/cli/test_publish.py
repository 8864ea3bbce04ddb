"""Lines that are read as reviews: what is no review says why, whatever it is."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.avro.codec import load_schema
from reviewmesh.cli import publish
from reviewmesh.cli.publish import NoReview, bounded_lines, decoded, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = [field["name"] for field in load_schema("review")["fields"]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "expected a review as JSON, got 'nonsense'"),
        ("[1]", "expected a JSON object, got list"),
        ('{"stars": 4}', "text: "),
        ('{"text": "t", "starz": 4}', "'starz'"),
        ('{"text": "t", "stars": true}', "stars: "),
        ('{"text": "t", "review_id": ""}', "review_id: "),
        ('{"text": "t", "review_id": 12345}', "review_id: expected text that is not empty, got 12"),
        ('{"text": "t", "created_at": "yesterday"}', "created_at: "),
        ('{"text": "t", "attributes": {"a": 1}}', "attributes: "),
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
        "1672913472000",
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
        return int(parse(json.dumps({"text": "t", "created_at": value}), 7)[0]["created_at"])

    assert of(1_672_913_472_123) == 1_672_913_472_123
    assert of("2023-01-05T10:11:12.123Z") == 1_672_913_472_123
    assert of("1970-01-01T01:00:01+01:00") == 1000
    assert of("1969-12-31T23:59:59.999Z") == -1
    assert of("2023-01-05 10:11:12") == 1_672_913_472_000
    assert of(None) == 7


@given(JSON | st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_json_a_line_holds_it_is_a_review_or_says_why(content: object) -> None:
    try:
        review, _generated = parse(json.dumps(content), 0)
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


def test_a_byte_order_mark_is_no_part_of_the_first_review() -> None:
    assert decoded(b"\xef\xbb\xbf" + b'{"text": "t"}\r\n') == '{"text": "t"}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "t"}\n'.encode("utf-16"), "UTF-16"),
        (b'{"text": "caf\xe9"}', "0xe9 at position 14"),
    ],
)
def test_a_line_of_another_encoding_says_so(line: bytes, words: str) -> None:
    with pytest.raises(NoReview, match=words):
        decoded(line)


def test_a_line_of_any_length_costs_itself_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_LINE_BYTES", 10)
    lines = list(bounded_lines(io.BytesIO(b"short\n" + b"x" * 95 + b"\n" + b"y" * 10 + b"\nlast")))
    assert lines == [b"short\n", b"x" * 11, b"y" * 10 + b"\n", b"last"]
    with pytest.raises(NoReview, match="at most 10 bytes"):
        decoded(lines[1])
    assert decoded(lines[3]) == "last"


def test_what_is_missing_is_filled_in() -> None:
    review, generated = parse('{"text": "t"}', 7)
    assert generated and len(review["review_id"]) == 36
    assert (review["created_at"], review["source"], review["attributes"]) == (7, "cli", {})
