"""Reads the oldest unfinished record of a group's partition: its timestamps give the lag.

Only this record is read, and only when it has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, TopicPartition

from reviewmesh.kafka.clients import REFUSED_BATCH
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.kafka.record import ORIGIN_TIMESTAMP, headers_of
from reviewmesh.lag.offsets import GroupProgress

READ_FOR_S = 3.0
POLL_S = 0.02
POLL_RECORDS = 1_000
LONGEST_TIMESTAMP = 15
# The retention of the topics.
LONGEST_WAY_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Head:
    """The first record that is not finished."""

    offset: int
    timestamp_ms: int
    origin_ms: int
    """When the producer published the review, from a header; else the record's timestamp."""
    appended: bool = False
    """Whether the timestamp is that of a broker; else it is the producer's."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where to search for a head: the unfinished offsets from `start` up to `end`."""

    partition: BrokerPartition
    start: int
    end: int
    progress: GroupProgress
    topic_id: int = 0
    """Kafka's id of the topic, shortened."""


class HeadReader:
    """Assigns a consumer for each read; it fetches nothing in between."""

    def __init__(self, consumer: Callable[[], Any]) -> None:
        """`consumer` gives the one to use now."""
        self._current = consumer
        self._consumer: Any = None

    def read(self, stretches: Iterable[Stretch]) -> dict[Stretch, Head | None]:
        """The head of each stretch, None where it has no record; without an answer in time it is
        left
        out."""
        found: dict[Stretch, Head | None] = {}
        waiting = list(dict.fromkeys(stretches))
        self._consumer = self._current()
        deadline = time.monotonic() + READ_FOR_S
        try:
            while waiting and time.monotonic() < deadline:
                # A partition can be assigned at one offset at a time.
                batch = {stretch.partition: stretch for stretch in reversed(waiting)}
                waiting = [
                    stretch for stretch in waiting if batch[stretch.partition] is not stretch
                ]
                found |= self._read_batch(batch, deadline)
        finally:
            self._consumer.unassign()
        return found

    def _read_batch(
        self, batch: dict[BrokerPartition, Stretch], deadline: float
    ) -> dict[Stretch, Head | None]:
        self._consumer.assign(
            [TopicPartition(*partition, s.start) for partition, s in batch.items()]
        )
        found: dict[Stretch, Head | None] = {}
        while len(found) < len(batch) and time.monotonic() < deadline:
            for message in self._consumer.consume(POLL_RECORDS, POLL_S):
                partition = BrokerPartition(message.topic(), message.partition())
                stretch = batch.get(partition)
                if message.error() is not None and message.error().code() in REFUSED_BATCH:
                    # Unreadable; the owner of the partition will skip it.
                    batch.pop(partition, None)
                elif stretch is not None and stretch not in found and _settles(message, stretch):
                    found[stretch] = _head(message, stretch)
        return found


def _settles(message: Any, stretch: Stretch) -> bool:
    """Whether this message is the head, or comes after all candidates."""
    error = message.error()
    if error is not None:
        ended: bool = error.code() == KafkaError._PARTITION_EOF
        return ended and message.offset() >= stretch.end
    offset = message.offset()
    return offset >= stretch.end or not stretch.progress.covers(offset)


def _head(message: Any, stretch: Stretch) -> Head | None:
    if message.error() is not None or message.offset() >= stretch.end:
        return None
    kind, timestamp_ms = message.timestamp()
    headers = dict(headers_of(message))
    return Head(
        offset=message.offset(),
        timestamp_ms=timestamp_ms,
        origin_ms=_origin_ms(headers.get(ORIGIN_TIMESTAMP), timestamp_ms),
        appended=kind == TIMESTAMP_LOG_APPEND_TIME,
    )


def _origin_ms(header: bytes | None, timestamp_ms: int) -> int:
    """The header may come from any producer: it is trusted only within LONGEST_WAY_MS before the
    record's timestamp."""
    if header is None or not header.isdigit() or len(header) > LONGEST_TIMESTAMP:
        return timestamp_ms
    origin_ms = int(header)
    return origin_ms if timestamp_ms - LONGEST_WAY_MS <= origin_ms <= timestamp_ms else timestamp_ms
