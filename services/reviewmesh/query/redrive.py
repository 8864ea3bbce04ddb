"""Replays of dead letters, first planned, then sent; an edited one in place of what was refused.

A plan says of each dead letter whether it would be sent, and if not, why. What is sent carries the
letter's name: the service that takes it drops a second replay of the same letter, whoever sends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaException

from reviewmesh.avro.codec import DecodeError, UnknownSchema
from reviewmesh.intake.erasure import erasing
from reviewmesh.intake.normalise import Refused, normalise
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.loop.replays import letter_at
from reviewmesh.query.connection import Connection
from reviewmesh.query.deadletters import (
    DeadLetter,
    erasures,
    is_erased,
    replay_headers,
    replayed_marks,
    send_again,
)
from reviewmesh.query.sending import Sender
from reviewmesh.query.values import schema_of
from reviewmesh_schemas.names import RAW


class Stays(StrEnum):
    """Why a dead letter is not sent."""

    REPLAYED = "was replayed before"
    ERASED = "its review was erased since"
    IMPOSSIBLE = "cannot be replayed"
    HOPELESS = "would be refused again"
    LATER = "beyond the limit"


@dataclass(frozen=True)
class Planned:
    """A dead letter, and why it stays; None: it would be sent."""

    letter: DeadLetter
    stays: Stays | None = None
    reason: str = ""

    @property
    def words(self) -> str:
        if self.stays is None:
            return "would be sent"
        return f"{self.stays}: {self.reason}" if self.reason else self.stays


@dataclass(frozen=True)
class Plan:
    """In the order in which they became dead letters."""

    entries: tuple[Planned, ...]

    @property
    def sendable(self) -> list[DeadLetter]:
        return [entry.letter for entry in self.entries if entry.stays is None]

    def staying(self, *reasons: Stays) -> list[Planned]:
        return [entry for entry in self.entries if entry.stays in reasons]


@dataclass(frozen=True)
class Redriven:
    """What came of a plan."""

    sent: tuple[DeadLetter, ...]
    failures: tuple[str, ...]
    """PARTITION/OFFSET (reason), of those that the broker did not acknowledge."""


def plan(
    connection: Connection,
    letters: Sequence[DeadLetter],
    limit: int | None = None,
    hopeless_too: bool = False,
) -> Plan:
    """What a replay of these would send, the oldest first. Sends nothing. Raises CannotReach.

    `hopeless_too`: also those that this version of intake refuses with the settings here; the
    services may run with others.
    """
    marks, erased = replayed_marks(connection), erasures(connection)
    planned: list[Planned] = []
    left = len(letters) if limit is None else limit
    for item in sorted(letters, key=lambda each: (each.timestamp_ms, each.partition, each.offset)):
        if marks.has(item.letter):
            planned.append(Planned(item, Stays.REPLAYED))
        elif is_erased(connection, item, erased):
            planned.append(Planned(item, Stays.ERASED))
        elif item.problem:
            planned.append(Planned(item, Stays.IMPOSSIBLE, item.problem))
        elif not hopeless_too and (reason := hopeless(connection, item)):
            planned.append(Planned(item, Stays.HOPELESS, reason))
        elif left <= 0:
            planned.append(Planned(item, Stays.LATER))
        else:
            left -= 1
            planned.append(Planned(item))
    return Plan(tuple(planned))


def redrive(connection: Connection, planned: Plan) -> Redriven:
    """Send what the plan says; each takes effect once, also when others send it meanwhile."""
    letters = planned.sendable
    failures = send_again(connection, letters)
    failed = {failure.partition(" ")[0] for failure in failures}
    sent = tuple(item for item in letters if item.place not in failed)
    return Redriven(sent, tuple(failures))


def hopeless(connection: Connection, item: DeadLetter) -> str:
    """Why its record is refused however often it is sent; empty when it may pass.

    What workers, a full broker or a missing schema refused may pass another time.
    """
    topic, value = item.content["topic"], item.content["value"]
    try:
        if value is None:
            erasing(item.content["key"])
            return ""
        record = connection.codec(topic).decode(value)
        if topic == RAW:
            normalise(record, connection.settings.intake.drop_attributes)
    except UnknownSchema:
        return ""
    except (DecodeError, Refused) as error:
        return str(error)
    return ""


class BadEdit(ValueError):
    """An edited review that would be refused; the message says why."""


def edited(connection: Connection, review: dict[str, Any]) -> bytes:
    """The review as a record of the raw topic. Raises BadEdit."""
    codec = connection.codec(RAW)
    known = [field["name"] for field in schema_of(RAW)["fields"]]
    if unknown := [name for name in review if name not in known]:
        raise BadEdit(f"expected some of {', '.join(known)}, got {', '.join(unknown)}")
    try:
        value = codec.encode(review)
        normalise(codec.decode(value), connection.settings.intake.drop_attributes)
    # fastavro raises what the first wrong field makes it stumble over.
    except (Refused, DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadEdit(str(error)) from error
    return value


def send_edited(connection: Connection, item: DeadLetter, value: bytes) -> tuple[int, int]:
    """Send an edited review as the replay of its dead letter; returns PARTITION and OFFSET of it.

    The letter counts as replayed then. Raises CannotReach.
    """
    review_id = connection.codec(RAW).decode(value)["review_id"].encode()
    letter = letter_at(item.place, item.timestamp_ms, review_id, value)
    places: list[tuple[int, int]] = []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            raise KafkaException(error)
        places.append((message.partition(), message.offset()))

    sender = Sender(connection)
    partition = partition_of(review_id, connection.partitions(RAW))
    sender.send(RAW, partition, review_id, value, replay_headers(item, letter), delivered)
    sender.close()
    return places[0]
