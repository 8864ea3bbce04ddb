"""The enriched reviews of a mesh, from the offsets that an export has come to up to their ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.avro.codec import DecodeError
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.topicids import TopicFinder
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import NotFound
from reviewmesh.query.reading import offsets, partitions_of, read_until
from reviewmesh_schemas.names import ENRICHED

CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Item:
    """One record; `review` is None where it cannot be read, for the reason in `problem`."""

    partition: int
    offset: int
    timestamp_ms: int
    size: int
    review: Mapping[str, Any] | None
    problem: str = ""


class ReviewSource(Protocol):
    topic: str
    topic_id: int
    """Another one if the topic was deleted and created again; 0 where it is not known."""

    def bounds(self) -> dict[int, tuple[int, int]]:
        """By partition, the first offset still there and the one after the last committed one."""
        ...

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Item]:
        """What was committed in between, of each partition in the order of its offsets."""
        ...


class EnrichedReviews:
    """Those of a mesh that runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codec = connection.codec(ENRICHED)
        self.topic = connection.topic(ENRICHED)
        found = TopicFinder(connection.settings.kafka).find([self.topic], CALL_TIMEOUT_S)
        if self.topic not in found:
            raise NotFound(f"the broker has no topic {self.topic}; see `reviewmesh topics list`")
        self.topic_id = found[self.topic].id

    def bounds(self) -> dict[int, tuple[int, int]]:
        partitions = partitions_of(self._connection, ENRICHED)
        ends = offsets(self._connection, partitions)
        starts = offsets(self._connection, partitions, OFFSET_BEGINNING)
        return {
            item.partition: (starts[item], max(starts[item], ends[item])) for item in partitions
        }

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Item]:
        records = read_until(self._connection, _in_mesh(starts), _in_mesh(ends))
        for record in records:
            if record.value is None:
                continue
            review, problem = None, ""
            try:
                review = self._codec.decode(record.value)
            except DecodeError as error:
                problem = str(error)
            yield Item(
                record.partition,
                record.offset,
                record.timestamp_ms,
                len(record.value),
                review,
                problem,
            )


def _in_mesh(values: Mapping[int, int]) -> dict[MeshPartition, int]:
    return {MeshPartition(ENRICHED, partition): value for partition, value in values.items()}
