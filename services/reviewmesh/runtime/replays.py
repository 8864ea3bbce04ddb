"""Replays of dead letters: each letter's takes effect once, whoever sends it how often.

Whoever replays a dead letter names its place in a header. The service that judges the record
writes a mark in the transaction of its outcome, to the partition of `reviews.replayed` of the
record's own number, and reads the marks back when the partition is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from reviewmesh.runtime.clock import Clock, milliseconds
from reviewmesh.runtime.codec import Codec, DecodeError
from reviewmesh.runtime.record import REPLAY_OF, Output, Record

REPLAYED = "reviews.replayed"
# Of one partition; with more replays than this, the oldest may be repeated.
REMEMBERED_REPLAYS = 50_000
PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,18})")


def place_of(record: Record) -> str | None:
    """The dead letter that a record is the replay of; None where no header names one."""
    value = record.header(REPLAY_OF)
    place = value[:40].decode("ascii", "replace") if value else ""
    return place if PLACE.fullmatch(place) else None


class Replays:
    """What one partition knows of replays that took effect.

    A mark names the record that took effect, so that this one is no double when it comes again.
    """

    def __init__(self, service: str, partition: int, codec: Codec, clock: Clock) -> None:
        self._service = service
        self._partition = partition
        self._codec = codec
        self._clock = clock
        self._offsets: dict[str, int] = {}
        # Replays in hand, without their marks yet.
        self._in_hand: dict[tuple[str, int], str] = {}

    def restore(self, record: Record) -> None:
        """A mark that was read back. Raises RegistryUnavailable."""
        place = (record.key or b"").decode("ascii", "replace")
        self._offsets.pop(place, None)
        if record.value is None:
            return
        try:
            self._remember(place, self._codec.decode_ours(record.value)["record_offset"])
        except DecodeError:
            # Whatever it is, the letter of that place was marked; the mark is not ours to judge.
            self._remember(place, -1)

    def is_doubled(self, record: Record) -> bool:
        """Whether another record was the replay of the same letter."""
        place = place_of(record)
        return place is not None and self._offsets.get(place, record.offset) != record.offset

    def take(self, record: Record) -> None:
        """If it is a replay at all, it is the one that takes effect."""
        place = place_of(record)
        if place is not None:
            self._remember(place, record.offset)
            self._in_hand[record.topic, record.offset] = place

    def marks(self, finished: Iterable[tuple[str, int]]) -> tuple[Output, ...]:
        """The marks of those replays that are finished with these offsets."""
        return tuple(
            self._mark(self._in_hand.pop(at), *at) for at in finished if at in self._in_hand
        )

    def mark_of(self, record: Record) -> tuple[Output, ...]:
        """The mark of a replay that is finished by itself, also where `marks` gave it before."""
        place = place_of(record)
        if place is None or self.is_doubled(record):
            return ()
        self._remember(place, record.offset)
        self._in_hand.pop((record.topic, record.offset), None)
        return (self._mark(place, record.topic, record.offset),)

    def _mark(self, place: str, topic: str, record_offset: int) -> Output:
        partition, _, offset = place.partition("/")
        value = self._codec.encode(
            {
                "partition": int(partition),
                "offset": int(offset),
                "stage": self._service,
                "topic": topic,
                "record_offset": record_offset,
                "at": milliseconds(self._clock()),
            }
        )
        return Output(REPLAYED, self._partition, place.encode(), value)

    def _remember(self, place: str, record_offset: int) -> None:
        self._offsets.pop(place, None)
        self._offsets[place] = record_offset
        if len(self._offsets) > REMEMBERED_REPLAYS:
            del self._offsets[next(iter(self._offsets))]
