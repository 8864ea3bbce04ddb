"""Handles a reset of the joiner's offsets: what to read again, and what not to publish again.

An accepted review that is read again needs its results again, which may be before the committed
offsets. And with a result topic that was reset forward, waiting reviews would lack results. So the
result inputs are moved back to where results of the first unfinished review can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import structlog

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.join.published import Published
from reviewmesh.kafka.readback import ReadBack
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Record
from reviewmesh.loop.stage import Start
from reviewmesh_schemas.names import ACCEPTED, ENRICHED, TASK_OF

# A result is appended after its review, but the clocks of two brokers may differ.
CLOCKS_DIFFER_MS = 600_000


@dataclass(slots=True)
class ResetReading:
    """The progress of reading `reviews.enriched` for one reset."""

    published: Published
    readback: ReadBack


class JoinerResets:
    """Used by the threads that load partitions, each for other partitions."""

    def __init__(
        self, reader: PartitionReader, enriched_codec: Codec, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._reader = reader
        self._codec = enriched_codec
        self._log = log
        self._readings: dict[int, ResetReading] = {}

    def mend(self, partition: int, starts: dict[str, Start]) -> Published | None:
        """Correct `starts`; returns which of the reviews that are read again are published.

        Raises Unavailable to be called again, also while more has to be read.
        """
        accepted = starts[ACCEPTED]
        first = accepted.offset or 0
        again = accepted.reset or accepted.redo_until > first
        if not again and not any(starts[topic].reset for topic in TASK_OF):
            return None
        low, end = self._reader.bounds(ACCEPTED, partition)
        record = self._reader.first_from(ACCEPTED, partition, first) if first < end else None
        if record is None:
            return None
        since_ms = record.timestamp_ms - CLOCKS_DIFFER_MS
        self._set_back(partition, starts, since_ms, again)
        if not again:
            return None
        until = end if accepted.reset else accepted.redo_until
        reading = self._readings.get(partition)
        if reading is None or not reading.published.serves(max(low, first), until):
            reading = self._begin(partition, max(low, first), until, since_ms)
        self._readings[partition] = reading
        reading.readback.go_on()
        # A load that was left behind, as by joining the group again, reads the same to its end.
        self._readings.pop(partition, None)
        starts[ACCEPTED] = replace(accepted, redo_until=reading.published.until)
        return reading.published

    def _set_back(
        self, partition: int, starts: dict[str, Start], since_ms: int, again: bool
    ) -> None:
        for topic in TASK_OF:
            start = starts[topic]
            if start.offset is None or not (again or start.reset):
                continue
            offset = min(start.offset, self._reader.offset_at(topic, partition, since_ms))
            if offset < start.offset:
                self._log.warning(
                    "reading results again from the first that an unfinished review may have",
                    topic=topic,
                    partition=partition,
                    committed=start.offset,
                    offset=offset,
                )
            # The finished offsets include results of reviews that are read again.
            starts[topic] = replace(start, offset=offset, finished=frozenset())

    def _begin(self, partition: int, first: int, until: int, since_ms: int) -> ResetReading:
        low, high = self._reader.bounds(ENRICHED, partition)
        covered_from_ms = 0.0
        if low > 0:
            oldest = self._reader.first_from(ENRICHED, partition, low)
            covered_from_ms = math.inf if oldest is None else oldest.timestamp_ms
        position = self._reader.offset_at(ENRICHED, partition, since_ms)
        self._log.warning(
            "the group was reset: accepted reviews are read again, and only those that are not "
            "published yet are published",
            partition=partition,
            first=first,
            until=until,
            reading_back=high - position,
        )
        published = Published(first, until, covered_from_ms)

        def take(record: Record) -> None:
            try:
                published.add(self._codec.decode_ours(record.value or b""))
            except DecodeError as error:
                self._log.warning(
                    "skipped a record that the joiner did not write",
                    topic=ENRICHED,
                    partition=partition,
                    offset=record.offset,
                    reason=str(error),
                )

        return ResetReading(
            published, ReadBack(self._reader, {(ENRICHED, partition): position}, take)
        )
