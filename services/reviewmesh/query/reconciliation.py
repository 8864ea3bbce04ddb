"""Reconciles published reviews with their outcomes: enriched, dropped as duplicate, or dead
letter."""

from __future__ import annotations

from typing import Any, ClassVar

from reviewmesh.avro.codec import DecodeError
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record
from reviewmesh.query.connection import Connection
from reviewmesh.query.lag import progress_of
from reviewmesh.query.reading import EndReached, offsets, partitions_of
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, ENRICHED, INTAKE_GROUP, RAW

RawOffset = tuple[int, int]
"""Partition and offset on the raw topic."""


class Reconciliation:
    """Fed with the records of TOPICS, from before the first review was published."""

    TOPICS: ClassVar = (ACCEPTED, ENRICHED, DEAD_LETTER)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codecs = {topic: connection.codec(topic) for topic in self.TOPICS}
        self._ends: dict[MeshPartition, int] = {}
        self._to_reach: dict[MeshPartition, int] | None = None
        self._accepted: set[RawOffset] = set()
        self._refused: set[RawOffset] = set()
        self.published: set[RawOffset] = set()
        self.duplicates: set[RawOffset] = set()
        self.enriched: dict[RawOffset, dict[str, Any]] = {}
        self.dead_letters: list[dict[str, Any]] = []

    def expect(self, published: list[RawOffset]) -> None:
        """Set the acknowledged reviews."""
        self.published = set(published)

    def take(self, record: Record) -> dict[str, Any] | None:
        """Take a record; returns it decoded if it is an enriched review of `published`."""
        if record.value is None:
            return None
        try:
            content = self._codecs[record.topic].decode(record.value)
        except DecodeError:
            # Not a record of the mesh.
            return None
        if record.topic == DEAD_LETTER:
            self.dead_letters.append(content)
            if content["topic"] == RAW:
                self._refused.add((content["partition"], content["offset"]))
            return None
        source = (content["source_partition"], content["source_offset"])
        if record.topic == ACCEPTED:
            self._accepted.add(source)
            return None
        # Records may arrive before their offsets are acknowledged, so keep all.
        self.enriched[source] = content
        return content if source in self.published else None

    def reached(self, end: EndReached) -> None:
        """A partition was read to its end at that time."""
        self._ends[end.partition] = max(end.offset, self._ends.get(end.partition, 0))

    def look_for_duplicates(self) -> None:
        """Reviews that intake has finished without an outcome were dropped as duplicates.

        The accepted topic has to be read up to its high watermark at a time after intake's commit
        was seen: records of open transactions may still appear.
        """
        if self._to_reach is None:
            raw = sorted({MeshPartition(RAW, partition) for partition, _offset in self.published})
            progress = progress_of(self._connection, INTAKE_GROUP, raw)
            if all(
                progress[MeshPartition(RAW, number)].covers(offset)
                for number, offset in self.published
            ):
                self._to_reach = offsets(
                    self._connection,
                    partitions_of(self._connection, ACCEPTED, DEAD_LETTER),
                    isolation="read_uncommitted",
                )
        if self._to_reach is not None and all(
            self._ends.get(partition, 0) >= end for partition, end in self._to_reach.items()
        ):
            self.duplicates = self.published - self._accepted - self._refused

    def missing(self) -> set[RawOffset]:
        """Published reviews without an outcome yet."""
        return self.published - self.enriched.keys() - self._refused - self.duplicates

    def is_settled(self) -> bool:
        return not self.missing()

    def words(self) -> str:
        """What is missing, for a message."""
        return (
            f"{len(self.missing())} of {len(self.published)} reviews are not accounted for "
            f"({len(self.enriched.keys() & self.published)} enriched, {len(self.duplicates)} "
            f"dropped, {len(self._refused)} refused)"
        )

    def ours(self) -> list[dict[str, Any]]:
        """The enriched reviews of what was published."""
        return [self.enriched[source] for source in self.published & self.enriched.keys()]
