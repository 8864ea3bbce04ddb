"""Reviews among the recent ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from reviewmesh.avro.codec import Codec
from reviewmesh.kafka.record import Record
from reviewmesh.query.recent import FOUND_AT_MOST, FoundReviews, Sought, match_recent
from reviewmesh_schemas.names import ENRICHED
from tests.unit.query.test_cost import OneSchema

NAME = "enriched_review"
CODEC = Codec(OneSchema(NAME), ENRICHED, NAME)  # type: ignore[arg-type]
[EXAMPLE, *_] = json.loads(
    (resources.files("reviewmesh_schemas") / "examples" / f"{NAME}.json").read_text()
)


def record(offset: int, **changed: Any) -> Record:
    content = EXAMPLE | {"review_id": f"r-{offset}", "revision": 1} | changed
    key = content["review_id"].encode()
    return Record(ENRICHED, 0, offset, key, CODEC.encode(content), (), 1_000 + offset)


def ids(sought: Sought, *records: Record) -> list[str]:
    return [one.content["review_id"] for one in found(sought, iter(records)).reviews]


def found(sought: Sought, records: Iterator[Record]) -> FoundReviews:
    return match_recent(CODEC, sought, records, is_all=True)


@pytest.mark.parametrize(
    ("text", "sought", "matches"),
    [
        ("Anna at the desk", "ANNA", True),
        ("Ærø er smuk", "ærø", True),
        ("100% (really)", "100% (", True),
        ("a.b", "axb", False),
        ("The 🙂 room", "🙂 room", True),
        ("غرفة جميلة", "جميلة", True),
        ("nothing", "Anna", False),
    ],
)
def test_text_is_found_as_it_is_written(text: str, sought: str, matches: bool) -> None:
    assert bool(ids(Sought(text=sought), record(1, text=text, title=None))) is matches


def test_a_long_text_is_found_behind_every_length_of_what_stands_before_it() -> None:
    """The first pass looks at bytes, where a length stands before each text."""
    for length in (*range(1, 300), 8_191, 8_192, 20_000):
        text = "ö" * length + " needle"
        assert ids(Sought(text="needle"), record(1, text=text, title=None)) == ["r-1"]


def test_a_word_of_another_field_is_no_match() -> None:
    assert ids(Sought(text="harbourmaster"), record(1, business_id="harbourmaster")) == []


def test_only_the_latest_revision_counts() -> None:
    old, new = record(1, text="Anna"), record(2, review_id="r-1", revision=2, text="Bert")
    assert ids(Sought(text="anna"), old, new) == []
    assert ids(Sought(text="bert"), old, new) == ["r-1"]


def test_the_reviews_of_a_window_are_those_accepted_in_it() -> None:
    records = [
        record(1, accepted_at=10, business_id="b"),
        record(2, accepted_at=20, business_id="b"),
        record(3, accepted_at=15, business_id=None),
        record(4, accepted_at=9, business_id="b"),
    ]
    assert ids(Sought(business_id="b", since_ms=10, until_ms=20), *records) == ["r-1"]
    assert ids(Sought(business_id="", since_ms=10, until_ms=20), *records) == ["r-3"]
    assert ids(Sought(since_ms=10, until_ms=20), *records) == ["r-3", "r-1"]


def test_a_topic_chooses() -> None:
    topics = [{"id": "food", "score": 0.9, "polarity": None}]
    records = [record(1, topics=topics), record(2, topics=[])]
    assert ids(Sought(topic="food"), *records) == ["r-1"]


def test_newest_first_bounded_and_counted() -> None:
    all_of_them = (record(number, text="Anna") for number in range(FOUND_AT_MOST + 20))
    shown = found(Sought(text="anna"), all_of_them)
    assert (len(shown.reviews), shown.number, shown.read) == (FOUND_AT_MOST, 120, 120)
    assert shown.reviews[0].content["review_id"] == f"r-{FOUND_AT_MOST + 19}"
    assert (shown.oldest_ms, shown.newest_ms) == (1_000, 1_119)


def test_what_cannot_be_decoded_is_passed_over() -> None:
    broken = Record(ENRICHED, 0, 5, b"x", b"\x00Anna")
    assert ids(Sought(text="anna"), broken, record(6, text="Anna")) == ["r-6"]
