"""Replays of dead letters: each letter's takes effect once, whoever sends it how often.

Whoever replays a dead letter names it in a header. The service that judges the record writes a mark
in the transaction of its outcome, to the partition of `reviews.replayed` of the record's own
number, and reads the marks back when the partition is opened.

Producers copy headers from record to record, and a topic that is made anew counts its offsets from
0 again. So a place alone tells neither records nor letters apart: a digest of the value goes with
it, and the time of the letter.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.kafka.record import REPLAY, REPLAY_OF, Output, Record
from reviewmesh_schemas.names import REPLAYED

log = logging.getLogger(__name__)

# Of one partition; with more replays than this, the oldest may be repeated.
REMEMBERED_REPLAYS = 50_000
TELL_AGAIN_AFTER_S = 60.0
PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,18})")
# Tools that are not the mesh's own name the place only.
NAMED = re.compile(r"([0-9]{1,9}/[0-9]{1,18})(?:/([0-9]{1,18})/([0-9a-f]{32}))?")
MARK = re.compile(r"([0-9]{1,9}/[0-9]{1,18})(?:/([0-9]{1,18}))?/([0-9a-f]{32})")
LONGEST_NAME = 9 + 18 + 18 + 32 + 3


class Letter(NamedTuple):
    """A dead letter, as its replays and their marks name it."""

    place: str
    # None where whoever replays it did not say.
    timestamp_ms: int | None
    digest: str

    @property
    def name(self) -> str:
        told = () if self.timestamp_ms is None else (str(self.timestamp_ms),)
        return "/".join((self.place, *told, self.digest))


def letter_at(place: str, timestamp_ms: int, key: bytes | None, value: bytes | None) -> Letter:
    """The letter that lies at a place of `reviews.dead-letter`, by the record that it holds."""
    return Letter(place, max(0, timestamp_ms), digest_of(key, value))


def digest_of(key: bytes | None, value: bytes | None) -> str:
    """Without the key where there is a value: what intake forwards has another key."""
    return hashlib.sha256(value or key or b"").hexdigest()[:32]


def place_named(header: bytes | None) -> str | None:
    """The place of the dead letter that a header names; None where it names none."""
    match = _match(header)
    return match[1] if match else None


def letter_of(record: Record) -> Letter | None:
    """The dead letter that a record is the replay of.

    None where it is none: so with headers that were copied from another record.
    """
    match = _match(record.header(REPLAY_OF))
    if match is None or record.header(REPLAY) is None:
        return None
    digest = digest_of(record.key, record.value)
    if match[3] not in (None, digest):
        return None
    return Letter(match[1], None if match[2] is None else int(match[2]), digest)


def _match(header: bytes | None) -> re.Match[str] | None:
    return NAMED.fullmatch((header or b"")[: LONGEST_NAME + 1].decode("ascii", "replace"))


class Marks:
    """What `reviews.replayed` says, for whoever replays letters."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}

    def take(self, record: Record) -> None:
        name = (record.key or b"").decode(errors="replace")
        self._at.pop(name, None)
        if record.value is not None:
            self._at[name] = record.timestamp_ms

    def has(self, letter: Letter) -> bool:
        """Marks without the letter's time are of a letter from before them; the oldest ones have no
        digest either."""
        since = letter.timestamp_ms or 0
        without_time = letter._replace(timestamp_ms=None).name
        return letter.name in self._at or any(
            self._at.get(name, -1) >= since for name in (without_time, letter.place)
        )


class Taken(NamedTuple):
    """The replay that took effect."""

    # The letter's.
    timestamp_ms: int | None
    offset: int
    at_ms: int


class Replays:
    """What one partition knows of replays that took effect.

    A mark names the record that took effect, so that this one is no double when it comes again.
    Marks of old that name no digest are passed over: they do not tell which record they are of.
    """

    def __init__(self, service: str, partition: int, codec: Codec, clock: Clock) -> None:
        self._service = service
        self._partition = partition
        self._codec = codec
        self._clock = clock
        # By place and digest.
        self._taken: dict[tuple[str, str], Taken] = {}
        # Replays in hand, without their marks yet.
        self._in_hand: dict[tuple[str, int], Letter] = {}
        self._told_at = -TELL_AGAIN_AFTER_S
        self._not_told = 0

    def restore(self, record: Record) -> None:
        """A mark that was read back. Raises RegistryUnavailable."""
        match = MARK.fullmatch((record.key or b"").decode("ascii", "replace"))
        if match is None:
            return
        letter = Letter(match[1], None if match[2] is None else int(match[2]), match[3])
        if record.value is None:
            self._taken.pop((letter.place, letter.digest), None)
            return
        try:
            offset = self._codec.decode_ours(record.value)["record_offset"]
        except DecodeError:
            # Whatever it is, the letter was marked; the mark is not ours to judge.
            offset = -1
        self._remember(letter, offset, record.timestamp_ms)

    def is_doubled(self, record: Record) -> bool:
        """Whether another record was the replay of the same letter."""
        letter = letter_of(record)
        taken = letter and self._taken.get((letter.place, letter.digest))
        if not letter or not taken or taken.offset == record.offset:
            return False
        if letter.timestamp_ms is None:
            return True
        if taken.timestamp_ms is None:
            return taken.at_ms >= letter.timestamp_ms
        return taken.timestamp_ms == letter.timestamp_ms

    def dropping(self, record: Record) -> Callable[[], None]:
        """Counts a doubled replay and tells of it; to be called once dropping it is committed."""
        letter = letter_of(record)
        assert letter is not None
        taken = self._taken[letter.place, letter.digest]
        at = f"{record.topic}/{record.partition} at offset {record.offset}"
        return partial(self._dropped, letter.place, at, taken.offset)

    def take(self, record: Record) -> None:
        """If it is a replay at all, it is the one that takes effect."""
        letter = letter_of(record)
        if letter is not None:
            self._remember(letter, record.offset, milliseconds(self._clock()))
            self._in_hand[record.topic, record.offset] = letter

    def marks(self, finished: Iterable[tuple[str, int]]) -> tuple[Output, ...]:
        """The marks of those replays that are finished with these offsets."""
        return tuple(
            self._mark(self._in_hand.pop(at), *at) for at in finished if at in self._in_hand
        )

    def mark_of(self, record: Record) -> tuple[Output, ...]:
        """The mark of a replay that is finished by itself, also where `marks` gave it before."""
        letter = letter_of(record)
        if letter is None or self.is_doubled(record):
            return ()
        self._remember(letter, record.offset, milliseconds(self._clock()))
        self._in_hand.pop((record.topic, record.offset), None)
        return (self._mark(letter, record.topic, record.offset),)

    def _mark(self, letter: Letter, topic: str, record_offset: int) -> Output:
        partition, _, offset = letter.place.partition("/")
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
        return Output(REPLAYED, self._partition, letter.name.encode(), value)

    def _remember(self, letter: Letter, offset: int, at_ms: int) -> None:
        known = letter.place, letter.digest
        self._taken.pop(known, None)
        self._taken[known] = Taken(letter.timestamp_ms, offset, at_ms)
        if len(self._taken) > REMEMBERED_REPLAYS:
            del self._taken[next(iter(self._taken))]

    def _dropped(self, place: str, at: str, taken_offset: int) -> None:
        metrics.REPLAYS_DROPPED.labels(self._service).inc()
        now = time.monotonic()
        if now - self._told_at < TELL_AGAIN_AFTER_S:
            self._not_told += 1
            return
        log.warning(
            "dropped %s: the dead letter %s was replayed before, by the same record at offset %s; "
            "%s others were dropped since this was last told",
            at,
            place,
            taken_offset,
            self._not_told,
        )
        self._told_at, self._not_told = now, 0
