"""What intake changes of a review, what it leaves alone, and what it refuses."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.intake.normalise import (
    LONGEST_RUN,
    MAX_ATTRIBUTE_NAME,
    MAX_ATTRIBUTE_VALUE,
    MAX_ATTRIBUTES,
    MAX_ATTRIBUTES_BYTES,
    MAX_LENGTHS,
    MAX_REVIEW_ID,
    MAX_TEXT,
    NON_STARTERS,
    Refused,
    clean,
    content_hash,
    normalise,
)

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
DROPPED = [control for control in CONTROLS if control not in "\t\n\r"]
ZWJ, ZWNJ, RLM, RLO, PDF, BOM, SOFT_HYPHEN = "\u200d\u200c\u200f\u202e\u202c\ufeff\u00ad"
JOINER = "\u034f"
COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"
# Of every Unicode category; surrogates cannot come out of Avro.
texts = st.text(st.characters(exclude_categories=["Cs"]))
written = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from([*CONTROLS, ZWJ, RLM, RLO, PDF, "e", "\u0301", "\u212b", "\ufb01"]),
    )
)


def raw(**fields: Any) -> dict[str, Any]:
    """A review as the codec decodes it: every field there."""
    absent = dict.fromkeys(("business_id", "title", "language", "stars", "created_at", "source"))
    review: dict[str, Any] = {
        **absent,
        "author": None,
        "attributes": {},
        "review_id": "r-1",
        "text": "Fine.",
    }
    return review | fields


def refusal(**fields: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        normalise(raw(**fields), ())
    return caught.value


# -- text ------------------------------------------------------------------------------------


@given(written)
def test_clean_is_nfc_of_what_is_left_without_controls(text: str) -> None:
    kept = "".join(character for character in text if character not in DROPPED)
    assert clean(text) == unicodedata.normalize("NFC", kept)


@given(st.text(st.sampled_from([*"ae\u0301\u0344\u0316\x00", JOINER]), max_size=400))
def test_no_run_of_marks_is_longer_than_a_stream_safe_one(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    run = 0
    for character in cleaned:
        run = run + 1 if unicodedata.combining(character) else 0
        assert run <= LONGEST_RUN
    assert unicodedata.normalize("NFD", cleaned.replace(JOINER, "")) == unicodedata.normalize(
        "NFD", text.replace(JOINER, "").replace("\x00", "")
    )


def test_a_text_of_nothing_but_marks_is_cleaned_without_waiting() -> None:
    # As one run it would be sorted in time that grows with the square of its length.
    marks = "a" + "\u0301\u0316" * (MAX_TEXT // 2)
    assert len(clean(marks)) > MAX_TEXT
    assert refusal(text=marks[:MAX_TEXT]).cause == "OVERSIZE"


def test_thirty_marks_in_a_row_stay_as_they_are() -> None:
    text = "x" + "\u0316" * LONGEST_RUN
    assert clean(text) == text
    assert clean(text + "\u0316") == text + JOINER + "\u0316"


@pytest.mark.parametrize("before", range(2 * LONGEST_RUN + 2))
def test_a_run_is_found_wherever_it_begins(before: int) -> None:
    marks = "\u0316" * LONGEST_RUN
    assert clean("x" * before + "é" + marks + "\u0316x") == (
        "x" * before + "é" + marks + JOINER + "\u0316x"
    )


def test_every_non_starter_is_among_those_that_are_counted() -> None:
    known = {
        one
        for one in map(chr, range(0x110000))
        if unicodedata.combining(unicodedata.normalize("NFD", one)[0])
    }
    assert set(NON_STARTERS) == known


@given(written)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_plain_text_stays_as_it_was_written(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("control", DROPPED, ids=lambda control: f"U+{ord(control):04X}")
def test_a_control_character_goes(control: str) -> None:
    assert clean(f"a{control}b") == "ab"


@pytest.mark.parametrize("kept", ["\t", "\n", "\r", "\r\n", "\n\n"])
def test_tabs_and_line_breaks_stay(kept: str) -> None:
    assert clean(f"a{kept}b") == f"a{kept}b"


@pytest.mark.parametrize(
    "kept", [ZWJ, ZWNJ, RLM, RLO, PDF, BOM, SOFT_HYPHEN], ids=lambda mark: f"U+{ord(mark):04X}"
)
def test_format_characters_stay(kept: str) -> None:
    assert clean(f"a{kept}\x00b") == f"a{kept}b"


def test_a_family_emoji_and_a_right_to_left_name_survive() -> None:
    text = f"👩{ZWJ}👩{ZWJ}👧 stayed at {RLO}abc{PDF}"
    assert clean(text) == text


def test_a_control_character_between_a_letter_and_its_accent_does_not_keep_them_apart() -> None:
    assert clean("e\x00\u0301") == COMPOSED


def test_compatibility_forms_stay_apart() -> None:
    assert clean("\ufb01ne ①") == "\ufb01ne ①"


def test_spaces_and_case_stay() -> None:
    assert clean("  Two  spaces,\u00a0one that does not break ") == (
        "  Two  spaces,\u00a0one that does not break "
    )


# -- what an accepted review holds ------------------------------------------------------------


@given(texts.filter(str.isprintable), st.none() | texts)
def test_all_but_text_and_title_goes_through_unchanged(business: str, source: str | None) -> None:
    given_ = raw(
        review_id="e\u0301/1",
        business_id=business,
        language="pt-BR",
        stars=4.5,
        created_at=1,
        source=source,
        attributes={"e\u0301": "\x00"},
    )
    accepted = normalise(given_, ())
    for field in ("review_id", "business_id", "language", "stars", "created_at", "source"):
        assert accepted[field] == given_[field]
    assert accepted["attributes"] == {"e\u0301": "\x00"}


def test_text_and_title_are_cleaned() -> None:
    accepted = normalise(
        raw(text=f"caf{DECOMPOSED}\x07", title=f"\x00{DECOMPOSED}t{DECOMPOSED}"), ()
    )
    assert accepted["text"] == f"caf{COMPOSED}"
    assert accepted["title"] == f"{COMPOSED}t{COMPOSED}"


def test_author_and_listed_attributes_are_dropped() -> None:
    given_ = raw(author="Ann Example", attributes={"email": "ann@example.com", "room": "12"})
    accepted = normalise(given_, ("email", "phone"))
    assert accepted["attributes"] == {"room": "12"}
    assert "author" not in accepted
    assert "Ann Example" not in repr(accepted)


# -- content hash -----------------------------------------------------------------------------


def test_the_hash_is_sha256_over_the_four_fields_with_their_lengths() -> None:
    assert content_hash("Ti", "Text", None, 4) == hashlib.sha256(b"2:Ti4:Text-:3:4.0").hexdigest()


def test_it_is_of_the_normalised_fields() -> None:
    one = normalise(raw(text=f"caf{DECOMPOSED}\x00", title=DECOMPOSED), ())
    other = normalise(raw(text=f"caf{COMPOSED}", title=COMPOSED), ())
    assert one["content_hash"] == other["content_hash"]
    assert one["content_hash"] == content_hash(COMPOSED, f"caf{COMPOSED}", None, None)


content = st.tuples(
    st.none() | texts, texts, st.none() | texts, st.none() | st.integers(1, 5) | st.floats(1, 5)
)


@given(content, content)
def test_it_differs_exactly_where_one_of_the_four_differs(one: Any, other: Any) -> None:
    assert (content_hash(*one) == content_hash(*other)) == (one == other)


@given(texts, texts)
def test_moving_a_border_between_fields_changes_it(left: str, right: str) -> None:
    if left:
        assert content_hash(left, right, None, None) != content_hash("", left + right, None, None)


def test_it_does_not_see_what_is_no_content() -> None:
    one = normalise(raw(business_id="a", source="x", created_at=1, attributes={"a": "b"}), ())
    assert one["content_hash"] == normalise(raw(review_id="other"), ())["content_hash"]


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stars", [0.99, 5.01, -3, 0, 1e308, float("inf"), float("nan")])
def test_stars_out_of_range_are_invalid(stars: float) -> None:
    assert refusal(stars=stars).cause == "INVALID"


@pytest.mark.parametrize("stars", [1, 5, 3.5, None])
def test_stars_in_range_or_none_are_accepted(stars: float | None) -> None:
    assert normalise(raw(stars=stars), ())["stars"] == stars


@pytest.mark.parametrize("review_id", ["", " ", "\t\n", "x" * (MAX_REVIEW_ID + 1)])
def test_a_review_id_that_can_be_no_key_is_invalid(review_id: str) -> None:
    assert refusal(review_id=review_id).cause == "INVALID"


def test_the_longest_review_id_is_accepted() -> None:
    assert normalise(raw(review_id="x" * MAX_REVIEW_ID), ())["review_id"] == "x" * MAX_REVIEW_ID


@pytest.mark.parametrize("text", [None, "", "   ", "\n\t", "\x00\x07", ZWJ + RLM, "\u3000\u00a0"])
def test_a_text_with_nothing_to_read_is_empty(text: str | None) -> None:
    assert refusal(text=text).cause == "EMPTY"


INVISIBLE = {
    "variation selectors": "\ufe0f\ufe00\U000e0100",
    "bidi marks": "\u200e\u200f\u061c\u202a\u202e\u2066\u2069",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "Braille blank": "\u2800",
    "tags": "\U000e0001\U000e0041\U000e007f",
    "a byte order mark": BOM,
    "a grapheme joiner": JOINER,
    "joiners and zero widths": "\u200b\u200c\u200d\u2060\u00ad",
    "Mongolian selectors": "\u180b\u180e\u180f",
    "Khmer inherent vowels": "\u17b4\u17b5",
    "an invisible that is not assigned yet": "\u2065\U000e0fff",
    "lines": "\u2028\u2029",
}


@pytest.mark.parametrize("name", INVISIBLE)
def test_what_nobody_sees_is_nothing_to_read(name: str) -> None:
    for character in INVISIBLE[name]:
        assert refusal(text=f" {character}{character}\n").cause == "EMPTY"
        assert normalise(raw(text=f"{character}x"), ())["text"] == f"{character}x"


@pytest.mark.parametrize(
    "text",
    [".", "👍", "\u0301", "  x  ", "\U0001fae8", "\U0001fae9", "\U0001f6dc", "\ue000", "\u0378"],
)
def test_the_least_text_is_accepted(text: str) -> None:
    assert normalise(raw(text=text), ())["text"] == text


def test_the_limit_counts_code_points_not_bytes() -> None:
    assert len(normalise(raw(text="👍" * MAX_TEXT), ())["text"]) == MAX_TEXT
    refused = refusal(text="👍" * (MAX_TEXT + 1))
    assert refused.cause == "OVERSIZE"
    assert "100,001" in str(refused)


def test_a_text_that_normalising_makes_too_long_is_oversize() -> None:
    # U+0958 is written as two code points in every normal form.
    assert refusal(text="\u0958" * (MAX_TEXT // 2 + 1)).cause == "OVERSIZE"


def test_a_text_that_was_too_long_before_is_oversize_even_where_it_would_shrink() -> None:
    assert refusal(text=DECOMPOSED * (MAX_TEXT // 2 + 1)).cause == "OVERSIZE"


@pytest.mark.parametrize("name", MAX_LENGTHS)
def test_every_field_has_a_limit_and_is_named_beyond_it(name: str) -> None:
    at_most = MAX_LENGTHS[name]
    assert normalise(raw(**{name: "x" * at_most}), ())[name] == "x" * at_most
    refused = refusal(**{name: "\u0301" * (at_most + 1)})
    assert refused.cause == "OVERSIZE"
    assert f"expected a {name} of at most {at_most:,} code points, got {at_most + 1:,}" in str(
        refused
    )


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({str(n): "" for n in range(MAX_ATTRIBUTES + 1)}, "at most 256 attributes, got 257"),
        ({"n" * (MAX_ATTRIBUTE_NAME + 1): ""}, "attributes with a name of at most 256"),
        ({"n\n": "v" * (MAX_ATTRIBUTE_VALUE + 1)}, r"an attribute 'n\n' of at most 65,536"),
        ({str(n): "é" * 65_000 for n in range(5)}, "attributes of at most 524,288 bytes together"),
    ],
)
def test_attributes_have_limits(attributes: dict[str, str], said: str) -> None:
    refused = refusal(attributes=attributes)
    assert refused.cause == "OVERSIZE"
    assert said in str(refused)
    assert len(str(refused)) < 1_000


def test_attributes_that_are_dropped_do_not_count() -> None:
    attributes = {"email": "x" * MAX_ATTRIBUTES_BYTES, "room": "v" * MAX_ATTRIBUTE_VALUE}
    assert normalise(raw(attributes=attributes), ("email",))["attributes"].keys() == {"room"}


@pytest.mark.parametrize(
    ("created_at", "said"),
    [
        (1_700_000_000_000_000, "got 1700000000000000, which looks like microseconds"),
        (1_700_000_000_000_000_000, "which looks like nanoseconds"),
        (2**62, "which looks like nanoseconds"),
        (-1, "in milliseconds since 1970"),
        (-(2**63), "got -9223372036854775808"),
        (253_402_300_800_000, "up to the year 9999"),
    ],
)
def test_a_time_that_readers_cannot_show_is_invalid(created_at: int, said: str) -> None:
    refused = refusal(created_at=created_at)
    assert refused.cause == "INVALID"
    assert "expected created_at in milliseconds" in str(refused)
    assert said in str(refused)


@pytest.mark.parametrize("created_at", [0, 1_700_000_000_000, 253_402_300_799_999, None])
def test_a_time_that_readers_can_show_is_accepted(created_at: int | None) -> None:
    assert normalise(raw(created_at=created_at), ())["created_at"] == created_at


@pytest.mark.parametrize(
    "mark", ["\u0301", "\u0344", "\u0f73", "\u0f75", "\u0f81\u0f71"], ids=ascii
)
def test_what_decomposes_into_marks_is_parted_as_they_are(mark: str) -> None:
    """The Tibetan vowels are starters, and each is two marks for whoever normalises."""
    cleaned = clean("a" + mark * 1_000)
    decomposed = unicodedata.normalize("NFD", cleaned)
    runs = "".join("m" if unicodedata.combining(one) else " " for one in decomposed).split()
    assert max(map(len, runs)) <= 2 * 30 + 2
