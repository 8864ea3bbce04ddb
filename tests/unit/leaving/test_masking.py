"""What is masked, and that every span of an answer leads back to the text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.leaving.masking import Masked, mask, replaced
from reviewmesh.leaving.patterns import KINDS, Found, find_patterns, merged


@st.composite
def masked_texts(draw: st.DrawFn) -> tuple[str, Masked]:
    """A text with some of it masked."""
    text = draw(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
    places = st.integers(0, len(text))
    spans = draw(st.lists(st.tuples(places, places, st.sampled_from(KINDS)), max_size=6))
    found = [Found(start, end, kind) for start, end, kind in spans if start < end]
    return text, replaced(text, merged(found))


@given(masked_texts())
def test_what_is_masked_is_gone_and_the_rest_is_there(made: tuple[str, Masked]) -> None:
    text, masked = made
    rebuilt, at = "", 0
    for found, start in zip(masked.found, masked.starts, strict=True):
        placeholder = f"[{found.kind}]"
        assert masked.text[start:].startswith(placeholder)
        rebuilt += masked.text[at:start] + text[found.start : found.end]
        at = start + len(placeholder)
    assert rebuilt + masked.text[at:] == text


@given(masked_texts(), st.data())
def test_a_span_comes_back_with_all_that_was_masked_in_it(
    made: tuple[str, Masked], data: st.DataObject
) -> None:
    text, masked = made
    start = data.draw(st.integers(0, len(masked.text)))
    end = data.draw(st.integers(start, len(masked.text)))
    back = masked.span(start, end)
    # By another way: the original's place of every code point of the masked text.
    places: list[tuple[int, int] | None] = []
    origin = 0
    for found, at in zip(masked.found, masked.starts, strict=True):
        while len(places) < at:
            places.append((origin, origin + 1))
            origin += 1
        places += [(found.start, found.end)] * len(f"[{found.kind}]")
        origin = found.end
    while len(places) < len(masked.text):
        places.append((origin, origin + 1))
        origin += 1
    assert origin == len(text)
    kept = [
        at
        for at in range(start, end)
        if places[at] is not None and not _inside(masked, at) and not masked.text[at].isspace()
    ]
    if not kept:
        assert back is None
    else:
        assert back == (places[start][0], places[end - 1][1])  # type: ignore[index]
        if not any(_inside(masked, at) for at in range(start, end)):
            assert text[back[0] : back[1]] == masked.text[start:end]


def _inside(masked: Masked, at: int) -> bool:
    return any(
        start <= at < start + len(f"[{found.kind}]")
        for found, start in zip(masked.found, masked.starts, strict=True)
    )


@pytest.mark.parametrize("span", [(-1, 2), (2, 2), (3, 2), (0, 99)])
def test_a_span_that_is_none_leads_nowhere(span: tuple[int, int]) -> None:
    assert mask("a good hotel", "en").span(*span) is None


@given(st.text(max_size=300), st.sampled_from(["", "da", "en-GB", "x", "de-CH-1996"]))
def test_any_text_can_be_masked(text: str, language: str) -> None:
    found = find_patterns(text, language)
    assert all(0 <= each.start < each.end <= len(text) for each in found)
    assert all(first.end <= second.start for first, second in pairwise(found))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("write to Anna.B+x@søm.dk!", "da", "write to [EMAIL]!"),
        ("or x@firma.intern", "", "or [EMAIL]"),
        ("ring 20 12 34 56 nu", "da", "ring [PHONE] nu"),
        ("call (212) 555-0123.", "en", "call [PHONE]."),
        ("call +45 20123456", "", "call [PHONE]"),
        ("card 4111 1111 1111 1111", "en", "card [CARD]"),
        ("IBAN DE89 3704 0044 0532 0130 00 THANKS", "de", "IBAN [IBAN] THANKS"),
        ("wrong digits: DE88370400440532013000", "de", "wrong digits: [IBAN]"),
        ("see https://x.de/o?id=12, ok", "de", "see [URL], ok"),
        ("from 10.0.0.1 or fe80::1", "en", "from [IP] or [IP]"),
        ("box aa:bb:cc:dd:ee:ff", "en", "box [MAC]"),
        ("ask @anna_b.", "en", "ask [HANDLE]."),
        ("at 55.67612, 12.56834", "en", "at [LOCATION]"),
        ("booking KD-4711-0815", "de", "booking [NUMBER]"),
        ("DNI 12345678Z, NINO QQ 12 34 56 C", "es", "DNI [NUMBER], NINO [NUMBER]"),
        ("order 1234567", "xx", "order [NUMBER]"),
    ],
)
def test_personal_data_with_a_pattern_is_masked(text: str, language: str, expected: str) -> None:
    assert mask(text, language).text == expected


@pytest.mark.parametrize(
    "text",
    [
        "We booked at booking.com and www.hotel.de for 3 nights.",
        "On 12.11.2023 at 12:30:45 we paid 1.299.000 kr, room 4012, zip 10115.",
        "5 stars! 100 % ... 2019-2020, version 3.1.4, iPhone 15 Pro, A320",
        "[EMAIL] is what it says",
    ],
)
def test_what_is_about_no_person_stays(text: str) -> None:
    assert mask(text, "de").text == text


def test_a_name_is_masked_wherever_it_is() -> None:
    text = "Anna Smith was kind. Ask for Anna, not for Annabel; smith is a word."
    assert mask(text, "en", [(0, 10)]).text == (
        "[NAME] was kind. Ask for [NAME], not for Annabel; smith is a word."
    )
