"""All records of one review in the mesh, and their outcomes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.topics import load_topics
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import FORWARDED_FROM, Record
from reviewmesh.query.connection import Connection
from reviewmesh.query.lag import progress_of
from reviewmesh.query.reading import partitions_of, read_all
from reviewmesh.query.values import failed_tasks
from reviewmesh_schemas.names import (
    ACCEPTED,
    DEAD_LETTER,
    ENRICHED,
    INTAKE_GROUP,
    PARTIAL,
    RAW,
    REPROCESS,
    REPROCESSED,
)

ANYWHERE = (RAW, DEAD_LETTER)
"""Topics where a review may be on any partition, because producers choose it."""
LAST = (ENRICHED, DEAD_LETTER)
"""Topics in which the processing of a review ends."""

UNDECODABLE = "undecodable"
WAITS_FOR_INTAKE = "waits for intake"
NO_OUTCOME = "no outcome: a duplicate that was dropped, or passed over by a reset"
# As intake writes it; producers may write anything. No offset has more than 19 digits.
ORIGIN = re.compile(r"([^/]{1,249})/([0-9]{1,9})/([0-9]{1,19})")

DecodedRecord = tuple[Record, dict[str, Any]]
Source = tuple[str, int, int]


@dataclass(frozen=True)
class Occurrence:
    """A record of the review, and its outcome."""

    record: Record
    outcome: str

    @property
    def is_last(self) -> bool:
        """Whether the processing of the review ends with this record."""
        return self.record.topic in LAST


def occurrences_of(connection: Connection, review_id: str) -> list[Occurrence]:
    """All records of a review, by topic and offset. Raises CannotReach."""
    return judged_occurrences(connection, _search(connection, review_id))


def judged_occurrences(connection: Connection, found: list[DecodedRecord]) -> list[Occurrence]:
    """Records of one review with their outcomes. Raises CannotReach."""
    judged = _judged(found)
    return [
        Occurrence(record, _outcome(connection, record, decoded, judged))
        for record, decoded in found
    ]


def _search(connection: Connection, review_id: str) -> list[DecodedRecord]:
    key = review_id.encode(errors="surrogateescape")
    topics = [topic.name for topic in load_topics().topics]
    codecs = {topic: connection.codec(topic) for topic in topics}
    found = []
    # All topics at once: a consumer and two requests for each would take most of the time.
    for record in read_all(
        connection, [at for topic in topics for at in _where(connection, topic, key)]
    ):
        # Avro stores text verbatim: a record without these bytes needs no decoding.
        if record.key != key and key not in (record.value or b""):
            continue
        decoded = decoded_of(codecs[record.topic], record)
        if review_id == decoded.get("review_id") or (
            record.key == key and decoded.get("review_id") is None
        ):
            found.append((record, decoded))
    return sorted(
        found, key=lambda item: (topics.index(item[0].topic), item[0].partition, item[0].offset)
    )


def decoded_of(codec: Codec, record: Record) -> dict[str, Any]:
    """Empty for a tombstone; with UNDECODABLE alone, and why, where it cannot be decoded."""
    try:
        return {} if record.value is None else codec.decode(record.value)
    except DecodeError as error:
        return {UNDECODABLE: str(error)}


def _where(connection: Connection, topic: str, key: bytes) -> list[MeshPartition]:
    if topic in ANYWHERE:
        return partitions_of(connection, topic)
    return [MeshPartition(topic, partition_of(key, connection.partitions(topic)))]


def _judged(found: list[DecodedRecord]) -> dict[Source, str]:
    """The outcomes of raw records, by topic, partition and offset of the producer's own record."""
    judged: dict[Source, str] = {}
    for record, decoded in found:
        if not decoded or UNDECODABLE in decoded:
            continue
        if record.topic == ACCEPTED:
            source = (
                decoded["source_topic"],
                decoded["source_partition"],
                decoded["source_offset"],
            )
            judged[source] = f"accepted at {record.partition}/{record.offset}"
        elif record.topic == DEAD_LETTER:
            source = (decoded["topic"], decoded["partition"], decoded["offset"])
            judged[source] = f"dead letter {record.partition}/{record.offset}"
        elif record.topic == RAW and (origin := _forwarded_from(record)):
            judged[origin] = f"forwarded to {record.partition}/{record.offset}"
    return judged


def _forwarded_from(record: Record) -> Source | None:
    """The source in the forwarding header; None without a valid one."""
    header = record.header(FORWARDED_FROM) or b""
    match = ORIGIN.fullmatch(header.decode(errors="replace"))
    return (match[1], int(match[2]), int(match[3])) if match else None


def _outcome(
    connection: Connection, record: Record, decoded: dict[str, Any], judged: dict[Source, str]
) -> str:
    if record.value is None:
        asks = record.topic == RAW
        return f"tombstone, {_raw_outcome(connection, record, judged)}" if asks else "tombstone"
    if UNDECODABLE in decoded:
        return str(decoded[UNDECODABLE])
    if record.topic == RAW:
        return _raw_outcome(connection, record, judged)
    if record.topic == DEAD_LETTER:
        place = f"{decoded['topic']} {decoded['partition']}/{decoded['offset']}"
        return f"{decoded['stage']} {decoded['cause']} of {place}: {decoded['message']}"
    if record.topic == ACCEPTED:
        return f"accepted, acceptance {decoded['acceptance']} of this content"
    if record.topic == ENRICHED:
        words = "complete" if decoded["complete"] else ", ".join(failed_tasks(decoded))
        return f"revision {decoded['revision']}, {words or 'incomplete'}"
    if record.topic == PARTIAL:
        return f"open: waits for answers on accepted offset {decoded['accepted_offset']}"
    if record.topic == REPROCESS:
        return f"{decoded['task']} is to be answered again, campaign {decoded['campaign']}"
    if record.topic == REPROCESSED:
        return f"{decoded['task']} was answered again, campaign {decoded['campaign']}"
    if "status" in decoded:
        return str(decoded["status"]) + (f": {decoded['error']}" if decoded["error"] else "")
    return "is here"


def _raw_outcome(connection: Connection, record: Record, judged: dict[Source, str]) -> str:
    place = (record.topic, record.partition, record.offset)
    if place in judged:
        return judged[place]
    if origin := _forwarded_from(record):
        words = judged.get(origin, "")
        if not words.startswith("forwarded"):
            return f"forwarded from {origin[1]}/{origin[2]}; {words}".rstrip("; ")
    partition = MeshPartition(record.topic, record.partition)
    progress = progress_of(connection, INTAKE_GROUP, [partition])[partition]
    if progress.covers(record.offset):
        return NO_OUTCOME
    return WAITS_FOR_INTAKE
