"""Replays of dead letters: a replay takes effect once, however often it is sent.

A replayed record names its dead letter in a header. The service that processes the record writes a
mark in the same transaction, to the partition of `reviews.replayed` with the record's own number,
and reads the marks back when the partition is opened.

Partition and offset alone do not identify a dead letter: producers copy headers from record to
record, and the offsets of a topic that is created again begin at 0. So the name of a dead letter
also holds its time and a digest of the value.
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
from reviewmesh.kafka.record import REPLAY, REPLAY_OF, REPLAY_SINCE, Output, Record
from reviewmesh_schemas.names import REPLAYED

log = logging.getLogger(__name__)

# Per partition; beyond this number, the oldest replays may take effect again.
REMEMBERED_REPLAYS = 50_000
LOG_EVERY_S = 60.0
PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,18})")
# Other tools than the mesh's own may give partition and offset only.
NAMED = re.compile(r"([0-9]{1,9}/[0-9]{1,18})(?:/([0-9]{1,18})/([0-9a-f]{32}))?")
MARK = re.compile(r"([0-9]{1,9}/[0-9]{1,18})(?:/([0-9]{1,18}))?/([0-9a-f]{32})")
LONGEST_TIME = 18
LONGEST_NAME = 9 + 18 + 18 + 32 + 3


class Letter(NamedTuple):
    """The name of a dead letter, in replays and their marks."""

    place: str
    """PARTITION/OFFSET in the dead-letter topic."""
    # None where the replay does not give it.
    timestamp_ms: int | None
    digest: str

    @property
    def name(self) -> str:
        told = () if self.timestamp_ms is None else (str(self.timestamp_ms),)
        return "/".join((self.place, *told, self.digest))


def letter_at(place: str, timestamp_ms: int, key: bytes | None, value: bytes | None) -> Letter:
    """The name of the dead letter at PARTITION/OFFSET that holds this record."""
    return Letter(place, max(0, timestamp_ms), digest_of(key, value))


def digest_of(key: bytes | None, value: bytes | None) -> str:
    """The digest of the value, or of the key without a value: forwarding changes the key."""
    return hashlib.sha256(value or key or b"").hexdigest()[:32]


def place_named(header: bytes | None) -> str | None:
    """PARTITION/OFFSET of the dead letter that a header names; None if it names none."""
    match = _match(header)
    return match[1] if match else None


def letter_of(record: Record) -> Letter | None:
    """The dead letter that a record replays.

    None if it is no replay, or if its headers were copied from another record.
    """
    match = _match(record.header(REPLAY_OF))
    if match is None or record.header(REPLAY) is None:
        return None
    digest = digest_of(record.key, record.value)
    if match[3] not in (None, digest):
        return None
    return Letter(match[1], None if match[2] is None else int(match[2]), digest)


def first_refused_ms(record: Record) -> int | None:
    """When a replayed record first became a dead letter, in milliseconds since 1970.

    0 if the header does not say; None if the record is no replay.
    """
    letter = letter_of(record)
    if letter is None:
        return None
    since = record.header(REPLAY_SINCE) or b""
    if since.isdigit() and len(since) <= LONGEST_TIME:
        return int(since)
    return letter.timestamp_ms or 0


def _match(header: bytes | None) -> re.Match[str] | None:
    return NAMED.fullmatch((header or b"")[: LONGEST_NAME + 1].decode("ascii", "replace"))


class Marks:
    """The marks of `reviews.replayed`, read by `reviewmesh dlq`."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}

    def take(self, record: Record) -> None:
        name = (record.key or b"").decode(errors="replace")
        for known in (name, self._edited(name)):
            self._at.pop(known, None)
            if record.value is not None:
                self._at[known] = record.timestamp_ms

    @staticmethod
    def _edited(name: str) -> str:
        """Without the digest: a letter that was edited was replayed with another value."""
        match = MARK.fullmatch(name)
        return f"{match[1]}/{match[2]}" if match and match[2] else name

    def has(self, letter: Letter) -> bool:
        """Whether the dead letter was replayed.

        Older versions wrote marks without its time, the oldest without the digest. These count for
        dead letters that are older than the mark.
        """
        since = letter.timestamp_ms or 0
        without_time = letter._replace(timestamp_ms=None).name
        edited = f"{letter.place}/{letter.timestamp_ms}"
        return (
            letter.name in self._at
            or edited in self._at
            or any(self._at.get(name, -1) >= since for name in (without_time, letter.place))
        )


class EffectiveReplay(NamedTuple):
    """The replay of a dead letter that took effect."""

    # The time of the dead letter.
    timestamp_ms: int | None
    offset: int
    at_ms: int


class Replays:
    """The replays of one partition that took effect.

    A mark names the record that took effect, so that this record is no duplicate when it is read
    again. Marks of older versions without a digest are ignored: they do not identify a record.
    """

    def __init__(self, service: str, partition: int, codec: Codec, clock: Clock) -> None:
        self._service = service
        self._partition = partition
        self._codec = codec
        self._clock = clock
        # By PARTITION/OFFSET and digest.
        self._effective: dict[tuple[str, str], EffectiveReplay] = {}
        # Replays in flight, whose marks are not written yet.
        self._in_flight: dict[tuple[str, int], Letter] = {}
        self._logged_at = -LOG_EVERY_S
        self._not_logged = 0

    def restore(self, record: Record) -> None:
        """Take a mark that was read back from the topic. Raises RegistryUnavailable."""
        match = MARK.fullmatch((record.key or b"").decode("ascii", "replace"))
        if match is None:
            return
        letter = Letter(match[1], None if match[2] is None else int(match[2]), match[3])
        if record.value is None:
            self._effective.pop((letter.place, letter.digest), None)
            return
        try:
            offset = self._codec.decode_ours(record.value)["record_offset"]
        except DecodeError:
            # The content is invalid, but its key says that the dead letter was replayed.
            offset = -1
        self._remember(letter, offset, record.timestamp_ms)

    def is_duplicate(self, record: Record) -> bool:
        """Whether another replay of the same dead letter has taken effect."""
        letter = letter_of(record)
        taken = letter and self._effective.get((letter.place, letter.digest))
        if not letter or not taken or taken.offset == record.offset:
            return False
        if letter.timestamp_ms is None:
            return True
        if taken.timestamp_ms is None:
            return taken.at_ms >= letter.timestamp_ms
        return taken.timestamp_ms == letter.timestamp_ms

    def on_dropped(self, record: Record) -> Callable[[], None]:
        """A callback that counts and logs a duplicate replay, for after the commit."""
        letter = letter_of(record)
        assert letter is not None
        taken = self._effective[letter.place, letter.digest]
        at = f"{record.topic}/{record.partition} at offset {record.offset}"
        return partial(self._dropped, letter.place, at, taken.offset)

    def take(self, record: Record) -> None:
        """Remember the record as the replay that takes effect, if it is a replay."""
        letter = letter_of(record)
        if letter is not None:
            self._remember(letter, record.offset, milliseconds(self._clock()))
            self._in_flight[record.topic, record.offset] = letter

    def marks(self, finished: Iterable[tuple[str, int]]) -> tuple[Output, ...]:
        """The marks of the replays among these finished offsets."""
        return tuple(
            self._mark(self._in_flight.pop(at), *at) for at in finished if at in self._in_flight
        )

    def mark_of(self, record: Record) -> tuple[Output, ...]:
        """The mark of a single finished replay, even if `marks` has returned it before."""
        letter = letter_of(record)
        if letter is None or self.is_duplicate(record):
            return ()
        self._remember(letter, record.offset, milliseconds(self._clock()))
        self._in_flight.pop((record.topic, record.offset), None)
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
        self._effective.pop(known, None)
        self._effective[known] = EffectiveReplay(letter.timestamp_ms, offset, at_ms)
        if len(self._effective) > REMEMBERED_REPLAYS:
            del self._effective[next(iter(self._effective))]

    def _dropped(self, place: str, at: str, taken_offset: int) -> None:
        metrics.REPLAYS_DROPPED.labels(self._service).inc()
        now = time.monotonic()
        if now - self._logged_at < LOG_EVERY_S:
            self._not_logged += 1
            return
        log.warning(
            "dropped %s: the dead letter %s was replayed before, by the record at offset %s; "
            "%s others were dropped since this was last logged",
            at,
            place,
            taken_offset,
            self._not_logged,
        )
        self._logged_at, self._not_logged = now, 0
