"""Marks of replays: kept over restarts, once per dead letter."""

from __future__ import annotations

import time
from typing import Any

import pytest

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.kafka.record import REPLAY, REPLAY_OF, Headers, Output, Record
from reviewmesh.loop.replays import (
    REMEMBERED_REPLAYS,
    Marks,
    Replays,
    digest_of,
    letter_at,
    letter_of,
    place_named,
)
from reviewmesh_schemas.names import REPLAYED

TOPIC = "reviews.accepted"


class OneSchema(SchemaRegistry):
    """A registry that knows one schema, under the id 1."""

    def __init__(self) -> None:
        super().__init__("http://registry.invalid")
        self.known: Any = None

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        self.known = schema
        return 1

    def schema(self, schema_id: int) -> dict[str, Any]:
        schema: dict[str, Any] = self.known
        return schema


@pytest.fixture
def codec() -> Codec:
    return Codec(OneSchema(), f"{REPLAYED}-value", "replayed")


LETTER_MS = 1_795_000_000_000
MARKED_MS = LETTER_MS + 1_000


def lying(mark: Output, offset: int = 0, timestamp_ms: int = MARKED_MS) -> Record:
    return Record(REPLAYED, mark.partition, offset, mark.key, mark.value, (), timestamp_ms)


def replays(codec: Codec, *marks: Output) -> Replays:
    fresh = Replays("joiner", 3, codec, lambda: MARKED_MS / 1000)
    for number, mark in enumerate(marks):
        fresh.restore(lying(mark, number))
    return fresh


def is_duplicate(known: Replays, record: Record) -> bool:
    """As a stage takes it."""
    doubled = known.is_duplicate(record)
    if not doubled:
        known.take(record)
    return doubled


def named(place: bytes) -> Headers:
    return (REPLAY, b"all"), (REPLAY_OF, place)


def replay(offset: int, place: bytes = b"3/7", value: bytes = b"value") -> Record:
    """Of a tool that names the place only."""
    return Record(TOPIC, 3, offset, b"key", value, named(place))


def ours(
    offset: int, place: str = "3/7", value: bytes | None = b"value", letter_ms: int = LETTER_MS
) -> Record:
    """As `dlq replay` sends it."""
    name = letter_at(place, letter_ms, b"key", value).name.encode()
    return Record(TOPIC, 3, offset, b"key", value, named(name))


@pytest.mark.parametrize("make", [replay, ours])
def test_a_second_replay_is_doubled_also_before_the_first_is_finished(
    codec: Codec, make: Any
) -> None:
    known = replays(codec)
    assert not is_duplicate(known, make(10))
    assert is_duplicate(known, make(11))


def test_one_that_names_the_place_only_and_one_that_names_all_are_of_the_same_letter(
    codec: Codec,
) -> None:
    for first, second in ((ours, replay), (replay, ours)):
        known = replays(codec)
        assert not is_duplicate(known, first(10))
        assert is_duplicate(known, second(11))
        restarted = replays(codec, *known.marks([(TOPIC, 10)]))
        assert is_duplicate(restarted, second(11))
        assert not is_duplicate(restarted, first(10))


def test_the_record_that_took_effect_is_none_when_it_comes_again(codec: Codec) -> None:
    known = replays(codec)
    assert not is_duplicate(known, ours(10))
    [mark] = known.marks([(TOPIC, 9), (TOPIC, 10)])
    assert mark.key == ours(10).header(REPLAY_OF)
    assert known.marks([(TOPIC, 10)]) == ()
    restarted = replays(codec, mark)
    assert not is_duplicate(restarted, ours(10))
    assert is_duplicate(restarted, ours(11))


def test_without_a_mark_the_first_that_comes_again_takes_effect(codec: Codec) -> None:
    assert not is_duplicate(replays(codec), replay(10))
    assert not is_duplicate(replays(codec), replay(11))


def test_a_record_that_is_set_aside_after_all_is_marked_again(codec: Codec) -> None:
    known = replays(codec)
    is_duplicate(known, replay(10))
    assert known.marks([(TOPIC, 10)]) == known.mark_of(replay(10))
    assert known.mark_of(replay(11)) == ()


def test_another_record_with_the_same_headers_is_no_double(codec: Codec) -> None:
    known = replays(codec)
    for number in range(20):
        assert not is_duplicate(known, replay(number, value=b"review %d" % number))
        copied = ours(100 + number)._replace(value=b"review %d" % number)
        assert letter_of(copied) is None
        assert not is_duplicate(known, copied)
        assert known.marks([(TOPIC, 100 + number)]) == ()
    assert not is_duplicate(known, ours(200)), "the true one, after the copies"


def test_a_record_that_does_not_say_it_is_a_replay_is_none(codec: Codec) -> None:
    known = replays(codec)
    for offset in (10, 11):
        assert not is_duplicate(known, replay(offset)._replace(headers=((REPLAY_OF, b"3/7"),)))


def test_the_letter_of_a_topic_made_anew_is_another_one(codec: Codec) -> None:
    """Also where the same bytes come to lie at the same place."""
    known = replays(codec)
    assert not is_duplicate(known, ours(10))
    [mark] = known.marks([(TOPIC, 10)])
    restarted = replays(codec, mark)
    assert not is_duplicate(restarted, ours(11, letter_ms=MARKED_MS + 1))
    assert not is_duplicate(restarted, ours(12, value=b"other", letter_ms=MARKED_MS + 1))
    placed = replays(codec)
    is_duplicate(placed, replay(10))
    [mark] = placed.marks([(TOPIC, 10)])
    assert not is_duplicate(replays(codec, mark), ours(11, letter_ms=MARKED_MS + 1))


def test_records_without_a_value_are_told_apart_by_their_keys() -> None:
    assert digest_of(b"a", None) != digest_of(b"b", None)
    assert digest_of(b"a", b"v") == digest_of(b"review", b"v"), "what is forwarded gets a new key"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        None,
        b"3",
        b"3/",
        b"-1/2",
        b"3/7/9",
        b"\xff/1",
        "٣/٧".encode(),
        b"1/" + b"9" * 99,
        b"3/7/5/" + b"0" * 31,
        b"3/7/5/" + b"0" * 33,
        b"3/7/-5/" + b"0" * 32,
        b"3/7/5/" + b"G" * 32,
        b"3/7/5/" + b"0" * 10_000_000,
    ],
    ids=range(14),
)
def test_a_header_that_names_no_letter_is_a_replay_without_a_mark(
    codec: Codec, value: bytes | None
) -> None:
    record = Record(TOPIC, 3, 10, None, None, ((REPLAY, b"all"), (REPLAY_OF, value)))
    assert letter_of(record) is None
    assert place_named(value) is None
    known = replays(codec)
    assert not is_duplicate(known, record)
    assert not is_duplicate(known, record._replace(offset=11))
    assert known.marks([(TOPIC, 10)]) == ()


def test_foreign_marks_and_tombstones_stop_nothing(codec: Codec) -> None:
    name = ours(10).header(REPLAY_OF)
    foreign = Output(REPLAYED, 3, name, b"junk")
    erased = Output(REPLAYED, 3, name, None)
    odd = Output(REPLAYED, 3, b"\xff\xfe", b"junk")
    of_old = Output(REPLAYED, 3, b"3/7", b"junk")
    assert is_duplicate(replays(codec, odd, foreign), ours(10))
    assert not is_duplicate(replays(codec, foreign, erased), ours(10))
    assert not is_duplicate(replays(codec, of_old), ours(10))
    assert not is_duplicate(replays(codec, of_old), replay(10))


def test_the_memory_is_bounded(codec: Codec) -> None:
    known = replays(codec)
    for number in range(REMEMBERED_REPLAYS + 1):
        assert not is_duplicate(known, replay(number, f"0/{number}".encode()))
    assert not is_duplicate(known, replay(1_000_000, b"0/0"))
    assert is_duplicate(known, replay(1_000_000, b"0/2"))


def test_what_is_dropped_is_counted_and_told_of_at_a_bounded_rate(
    codec: Codec, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    known, counter = replays(codec), metrics.REPLAYS_DROPPED.labels("joiner")
    before = counter._value.get()
    is_duplicate(known, ours(10))
    for offset in range(11, 111):
        assert known.is_duplicate(ours(offset))
        known.on_dropped(ours(offset))()
    now = 61.0
    known.on_dropped(ours(111))()
    assert counter._value.get() == before + 101
    first, second = (entry.getMessage() for entry in caplog.records)
    assert "reviews.accepted/3 at offset 11: the dead letter 3/7" in first
    assert "99 others" in second


# -- what `dlq` makes of the marks -------------------------------------------------------------


def test_marks_of_a_topic_that_was_deleted_replay_no_letter_of_the_new_one(codec: Codec) -> None:
    """In each form: with the whole name, with place and digest, and of old with the place.

    The whole name covers other content of the same place and time, too: the letter was edited.
    """
    letter = letter_at("3/7", LETTER_MS, b"key", b"value")
    later = letter._replace(timestamp_ms=MARKED_MS + 1)
    other = letter_at("3/7", LETTER_MS, b"key", b"other")
    for name in (letter.name, letter._replace(timestamp_ms=None).name, letter.place):
        marks = Marks()
        mark = Output(REPLAYED, 3, name.encode(), b"x")
        marks.take(lying(mark))
        assert marks.has(letter)
        assert not marks.has(later)
        assert marks.has(other) == (name in (letter.name, "3/7"))
        assert not marks.has(other._replace(timestamp_ms=MARKED_MS + 1))
        marks.take(lying(mark._replace(value=None)))
        assert not marks.has(letter)
