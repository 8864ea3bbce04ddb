"""Marks of replays: kept over restarts, once per dead letter."""

from __future__ import annotations

from typing import Any

import pytest

from reviewmesh.runtime.codec import Codec
from reviewmesh.runtime.record import REPLAY_OF, Output, Record
from reviewmesh.runtime.registry import SchemaRegistry
from reviewmesh.runtime.replays import REMEMBERED_REPLAYS, REPLAYED, Replays, place_of

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


def replays(codec: Codec, *marks: Output) -> Replays:
    fresh = Replays("joiner", 3, codec, lambda: 1.0)
    for number, mark in enumerate(marks):
        fresh.restore(Record(REPLAYED, mark.partition, number, mark.key, mark.value))
    return fresh


def is_doubled(known: Replays, record: Record) -> bool:
    """As a stage takes it."""
    doubled = known.is_doubled(record)
    if not doubled:
        known.take(record)
    return doubled


def replay(offset: int, place: bytes = b"3/7") -> Record:
    return Record(TOPIC, 3, offset, b"key", b"value", ((REPLAY_OF, place),))


def test_a_second_replay_is_doubled_also_before_the_first_is_finished(codec: Codec) -> None:
    known = replays(codec)
    assert not is_doubled(known, replay(10))
    assert is_doubled(known, replay(11))
    assert not is_doubled(known, replay(12, b"3/8"))


def test_the_record_that_took_effect_is_none_when_it_comes_again(codec: Codec) -> None:
    known = replays(codec)
    assert not is_doubled(known, replay(10))
    [mark] = known.marks([(TOPIC, 9), (TOPIC, 10)])
    assert mark.key == b"3/7"
    assert known.marks([(TOPIC, 10)]) == ()
    restarted = replays(codec, mark)
    assert not is_doubled(restarted, replay(10))
    assert is_doubled(restarted, replay(11))


def test_without_a_mark_the_first_that_comes_again_takes_effect(codec: Codec) -> None:
    assert not is_doubled(replays(codec), replay(10))
    assert not is_doubled(replays(codec), replay(11))


def test_a_record_that_is_set_aside_after_all_is_marked_again(codec: Codec) -> None:
    known = replays(codec)
    is_doubled(known, replay(10))
    assert known.marks([(TOPIC, 10)]) == known.mark_of(replay(10))
    assert known.mark_of(replay(11)) == ()


@pytest.mark.parametrize(
    "value",
    [b"", None, b"3", b"3/", b"-1/2", b"3/7/9", b"\xff/1", "٣/٧".encode(), b"1/" + b"9" * 99],
)
def test_a_header_that_names_no_place_is_a_replay_without_a_mark(
    codec: Codec, value: bytes | None
) -> None:
    record = Record(TOPIC, 3, 10, None, None, ((REPLAY_OF, value),))
    assert place_of(record) is None
    known = replays(codec)
    assert not is_doubled(known, record)
    assert not is_doubled(known, record._replace(offset=11))
    assert known.marks([(TOPIC, 10)]) == ()


def test_foreign_marks_and_tombstones_stop_nothing(codec: Codec) -> None:
    foreign = Output(REPLAYED, 3, b"3/7", b"junk")
    erased = Output(REPLAYED, 3, b"3/7", None)
    odd = Output(REPLAYED, 3, b"\xff\xfe", b"junk")
    assert is_doubled(replays(codec, odd, foreign), replay(10))
    assert not is_doubled(replays(codec, foreign, erased), replay(10))


def test_the_memory_is_bounded(codec: Codec) -> None:
    known = replays(codec)
    for number in range(REMEMBERED_REPLAYS + 1):
        assert not is_doubled(known, replay(number, f"0/{number}".encode()))
    assert not is_doubled(known, replay(1_000_000, b"0/0"))
    assert is_doubled(known, replay(1_000_000, b"0/2"))
