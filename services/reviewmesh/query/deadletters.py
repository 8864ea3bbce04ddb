"""Lists, finds and replays dead letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException

from reviewmesh.avro.codec import DecodeError
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import REPLAY, REPLAY_OF, REPLAY_SINCE, Headers
from reviewmesh.loop.erasures import REMEMBERED_ERASURES, Erasures
from reviewmesh.loop.replays import PLACE, Letter, Marks, letter_at, place_named
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import NotFound
from reviewmesh.query.reading import offsets, partitions_of, read_all, read_until
from reviewmesh.query.sending import Sender
from reviewmesh_schemas.names import (
    ACCEPTED,
    DEAD_LETTER,
    RAW,
    REPLAYED,
    REPROCESS,
    REPROCESSED,
    RESULT_OF,
)

REPLAYABLE = (RAW, ACCEPTED, *RESULT_OF.values())
"""The topics that the mesh reads: a dead letter of another topic cannot be replayed."""


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter with its partition and offset."""

    partition: int
    offset: int
    timestamp_ms: int
    content: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.partition}/{self.offset}"

    @property
    def letter(self) -> Letter:
        """Its name in replays and their marks."""
        return letter_at(self.place, self.timestamp_ms, self.content["key"], self.content["value"])

    @property
    def replay_of(self) -> str | None:
        """PARTITION/OFFSET of the dead letter whose replay failed and became this one."""
        for header in reversed(self.content["headers"]):
            if header["key"] == REPLAY_OF:
                return place_named(header["value"])
        return None

    @property
    def since_ms(self) -> int:
        """When its record first became a dead letter: before now, if it is a replay that failed."""
        for header in reversed(self.content["headers"]):
            if header["key"] == REPLAY_SINCE and (header["value"] or b"").isdigit():
                return min(self.timestamp_ms, int(header["value"]))
        return self.timestamp_ms

    @property
    def problem(self) -> str:
        """Why it cannot be replayed; empty when it can."""
        if self.content["topic"] in (REPROCESS, REPROCESSED):
            return "it belongs to a campaign; `reviewmesh reprocess` chooses the review again"
        if self.content["topic"] not in REPLAYABLE:
            return f"it was read from {self.content['topic']!r:.60}, which the mesh does not read"
        if not 0 <= self.content["partition"] < 2**31:
            return f"no topic has a partition {self.content['partition']}"
        if self.content["value"] is None and self.content["cause"] == "TOMBSTONE":
            return "it has no value; to erase a review run `reviewmesh forget`"
        if self.content["value"] is None and self.content["cause"] in ("OVERSIZE", "UNREADABLE"):
            return "nothing of it could be read; publish the review again from its source"
        kept, length = len(self.content["value"] or b""), self.content.get("value_length")
        if length is not None and length > kept:
            return (
                f"only {kept:,} of its {length:,} bytes fit into the dead letter; publish the "
                "review again from its source"
            )
        return ""


def all_letters(connection: Connection, passed_over: Callable[[str], None]) -> list[DeadLetter]:
    """All dead letters, oldest first in each partition.

    Invalid records are skipped, with a message to `passed_over` that may contain any characters.
    """
    codec, letters = connection.codec(DEAD_LETTER), []
    for record in read_all(connection, partitions_of(connection, DEAD_LETTER)):
        try:
            content = codec.decode(record.value or b"")
        except DecodeError as error:
            place = f"{record.partition}/{record.offset}"
            passed_over(f"{place}: no dead letter: {error}")
            continue
        letters.append(DeadLetter(record.partition, record.offset, record.timestamp_ms, content))
    return sorted(letters, key=lambda item: (item.partition, item.offset))


def letter_placed(connection: Connection, place: str) -> DeadLetter:
    """The dead letter at PARTITION/OFFSET. Raises ValueError for another form, and NotFound."""
    match = PLACE.fullmatch(place)
    partitions = connection.partitions_found(DEAD_LETTER)
    if match is None or int(match[1]) >= partitions:
        raise ValueError(
            f"expected PARTITION/OFFSET with a partition below {partitions}, got {place!r}"
        )
    at, offset = MeshPartition(DEAD_LETTER, int(match[1])), int(match[2])
    end = min(offset + 1, offsets(connection, [at])[at])
    for record in read_until(connection, {at: offset}, {at: end}):
        if record.offset == offset:
            content = connection.codec(DEAD_LETTER).decode(record.value or b"")
            return DeadLetter(record.partition, offset, record.timestamp_ms, content)
    raise NotFound(f"there is no dead letter at {place}; see `reviewmesh dlq list`")


def replayed_marks(connection: Connection) -> Marks:
    """The marks of dead letters whose replay has taken effect."""
    marks = Marks()
    # The topic is missing until `topics apply` of this version has run.
    if connection.topic(REPLAYED) not in connection.found:
        return marks
    for record in read_all(connection, partitions_of(connection, REPLAYED)):
        marks.take(record)
    return marks


def erasures(connection: Connection) -> Erasures:
    """Which reviews were erased, and when. Raises CannotReach."""
    wanted = partitions_of(connection, REPLAYED)
    found = Erasures(connection.codec(REPLAYED), REMEMBERED_ERASURES * len(wanted))
    if connection.topic(REPLAYED) in connection.found:
        for record in read_all(connection, wanted):
            found.restore(record)
    return found


def is_erased(connection: Connection, item: DeadLetter, erased: Erasures) -> bool:
    """Whether its review was erased since: the service that judges the replay would drop it."""
    topic = item.content["topic"]
    if topic not in (RAW, ACCEPTED):
        return False
    try:
        version = connection.codec(topic).decode(item.content["value"] or b"")
    except DecodeError:
        return False
    if topic == RAW:
        return erased.covers_letter(version["review_id"], item.since_ms)
    return erased.covers(version["review_id"], version["accepted_at"])


def replay_headers(item: DeadLetter, letter: Letter) -> Headers:
    """Those that its producer wrote, and the marks of a replay that counts as that of `letter`.

    Of REPLAY only the presence counts. The stage that takes the record keeps the name of the dead
    letter, and drops a second replay of it.
    """
    own = (
        (header["key"], header["value"])
        for header in item.content["headers"]
        if header["key"] not in (REPLAY, REPLAY_OF, REPLAY_SINCE)
    )
    return (
        *own,
        (REPLAY, b"all"),
        (REPLAY_OF, letter.name.encode()),
        (REPLAY_SINCE, str(max(0, item.since_ms)).encode()),
    )


def send_again(connection: Connection, letters: list[DeadLetter]) -> list[str]:
    """Send the original records, marked as replays; returns the failures."""
    sender, failures = Sender(connection), []

    for item in letters:

        def delivered(error: Any, _message: Any, item: DeadLetter = item) -> None:
            if error is not None:
                failures.append(f"{item.place} ({error.str()})")

        content = item.content
        try:
            sender.send(
                content["topic"],
                partition=content["partition"],
                key=content["key"],
                value=content["value"],
                headers=replay_headers(item, item.letter),
                on_delivery=delivered,
            )
        except KafkaException as error:
            failures.append(f"{item.place} ({error.args[0].str()})")
    sender.close()
    return failures
