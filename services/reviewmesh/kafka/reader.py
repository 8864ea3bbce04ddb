"""Reads a range of one partition: for state that a stage rebuilds when it opens a partition."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.batches import Prober, find_impassable
from reviewmesh.kafka.offsets import offsets_at, start_and_end
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.kafka.record import Record, Unavailable, headers_of
from reviewmesh.settings import Settings

DEADLINE_S = 20.0
CALL_TIMEOUT_S = 5.0


class PartitionReader:
    """Committed records of any partition, up to its end at the time of the call.

    The end is the high watermark. Records after the last stable offset are waited for: a
    transaction whose offsets are committed may not have its marker here yet. All methods raise
    Unavailable when the broker does not answer in time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefix = settings.prefix
        self._options = kafka.reader_options(settings)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset and the one after the last, open transactions included."""
        with self._asking(topic, partition) as consumer:
            return self._bounds(consumer, topic, partition)

    def offset_at(self, topic: str, partition: int, since_ms: int) -> int:
        """The first offset that was appended at `since_ms` or later; the end when there is none."""
        with self._asking(topic, partition) as consumer:
            return self._offset_at(consumer, topic, partition, since_ms)

    def first_from(self, topic: str, partition: int, start: int) -> Record | None:
        """The first committed record at or after `start`."""
        return next(self.read_from(topic, partition, start), None)

    def read_tail(
        self, topic: str, partition: int, since_ms: int | None, at_most: int | None
    ) -> Iterator[Record]:
        """From `since_ms` (None: the beginning), but at most `at_most` offsets before the end."""
        with self._asking(topic, partition) as consumer:
            start, high = self._bounds(consumer, topic, partition)
            if since_ms is not None:
                start = self._offset_at(consumer, topic, partition, since_ms)
            if at_most is not None:
                start = max(start, high - at_most)
        yield from self.read_from(topic, partition, start)

    def read_from(self, topic: str, partition: int, start: int) -> Iterator[Record]:
        """From `start`, or from the first offset still there, to the end."""
        low, high = self.bounds(topic, partition)
        start = max(start, low)
        if start >= high:
            return
        with self._consumer(topic, partition, "read_committed") as consumer:
            yield from self._until(consumer, topic, partition=partition, start=start, high=high)

    def _bounds(self, consumer: Any, topic: str, partition: int) -> tuple[int, int]:
        target = BrokerPartition(self._prefix + topic, partition)
        return start_and_end(consumer, target, CALL_TIMEOUT_S)

    def _offset_at(self, consumer: Any, topic: str, partition: int, since_ms: int) -> int:
        target = BrokerPartition(self._prefix + topic, partition)
        found = offsets_at(consumer, [target], max(0, since_ms), CALL_TIMEOUT_S)[target]
        return found if found >= 0 else self._bounds(consumer, topic, partition)[1]

    def _asking(self, topic: str, partition: int) -> Any:
        # Under read_committed the end would be the last stable offset.
        return self._consumer(topic, partition, "read_uncommitted")

    @contextmanager
    def _consumer(self, topic: str, partition: int, isolation: str) -> Iterator[Any]:
        consumer: Any = kafka.make_consumer(
            {**self._options, "isolation.level": isolation}, lambda error: None
        )
        try:
            yield consumer
        except KafkaException as error:
            raise Unavailable(
                f"reading {self._prefix}{topic}/{partition}: {error.args[0].str()}"
            ) from error
        finally:
            consumer.close()

    def read_one(self, topic: str, partition: int, offset: int) -> Record:
        """The record at an offset; without a value where it cannot be read."""
        consumer: Any = kafka.make_consumer(self._options, lambda error: None)
        try:
            consumer.assign([TopicPartition(self._prefix + topic, partition, offset)])
            for message in consumer.consume(1, CALL_TIMEOUT_S):
                if message.error() is None and message.offset() == offset:
                    return record_of(topic, message)
        finally:
            consumer.close()
        return Record(topic=topic, partition=partition, offset=offset, key=None, value=None)

    def _until(
        self, consumer: Any, topic: str, partition: int, start: int, high: int
    ) -> Iterator[Record]:
        consumer.assign([TopicPartition(self._prefix + topic, partition, start)])
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            for message in consumer.consume(500, 0.1):
                error = message.error()
                if error is None:
                    yield record_of(topic, message)
                    if message.offset() + 1 >= high:
                        return
                elif error.code() in kafka.REFUSED_BATCH and message.offset() >= 0:
                    # The client rejects this batch, which holds no stage's state: skip it.
                    with Prober(self._settings, topic, partition) as prober:
                        batch = find_impassable(prober, message.offset())
                    after = message.offset() if batch is None else batch.next
                    if after >= high:
                        return
                    consumer.assign([TopicPartition(self._prefix + topic, partition, after)])
                    break
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                elif message.offset() >= high:
                    return
        raise Unavailable(
            f"reading {self._prefix}{topic} to offset {high} took over {DEADLINE_S} s; where "
            "nothing is slow, an open transaction holds it up"
        )


def record_of(topic: str, message: Any) -> Record:
    """A consumed message that is no error; `topic` is its topic without the prefix."""
    return Record(
        topic=topic,
        partition=message.partition(),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
        timestamp_ms=message.timestamp()[1],
    )
