"""Reads a stretch of one partition by hand: for state that a stage rebuilds when it opens one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh.runtime import kafka
from reviewmesh.runtime.record import Record, Unavailable
from reviewmesh.runtime.settings import Settings

DEADLINE_S = 20.0
CALL_TIMEOUT_S = 5.0


class PartitionReader:
    """Committed records of any partition, up to the end as it is when asked."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.prefix
        self._options = kafka.reader_options(settings)

    def read_tail(
        self, topic: str, partition: int, since_ms: int | None, at_most: int | None
    ) -> Iterator[Record]:
        """From `since_ms` (None: the beginning), but at most `at_most` offsets before the end.

        Raises Unavailable when the broker does not answer in time.
        """
        consumer: Any = kafka.make_consumer(self._options, lambda error: None)
        target = TopicPartition(self._prefix + topic, partition)
        try:
            low, high = consumer.get_watermark_offsets(target, timeout=CALL_TIMEOUT_S)
            start = low
            if since_ms is not None:
                at = TopicPartition(target.topic, partition, since_ms)
                found = consumer.offsets_for_times([at], timeout=CALL_TIMEOUT_S)[0].offset
                start = found if found >= 0 else high
            if at_most is not None:
                start = max(start, high - at_most)
            if start < high:
                consumer.assign([TopicPartition(target.topic, partition, start)])
                yield from self._until(consumer, topic, high)
        except KafkaException as error:
            raise Unavailable(
                f"reading {target.topic}/{partition}: {error.args[0].str()}"
            ) from error
        finally:
            consumer.close()

    def read_one(self, topic: str, partition: int, offset: int) -> Record:
        """The record at an offset; one without a value where it cannot be had."""
        consumer: Any = kafka.make_consumer(self._options, lambda error: None)
        try:
            consumer.assign([TopicPartition(self._prefix + topic, partition, offset)])
            for message in consumer.consume(1, CALL_TIMEOUT_S):
                if message.error() is None and message.offset() == offset:
                    return record_of(topic, message)
        finally:
            consumer.close()
        return Record(topic, partition, offset, None, None)

    def _until(self, consumer: Any, topic: str, high: int) -> Iterator[Record]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            for message in consumer.consume(500, 0.1):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    if message.offset() >= high:
                        return
                    continue
                yield record_of(topic, message)
                if message.offset() + 1 >= high:
                    return
        raise Unavailable(
            f"reading {self._prefix}{topic} to offset {high} took over {DEADLINE_S} s"
        )


def record_of(topic: str, message: Any) -> Record:
    """A consumed message, which is no error, under its topic's name without the prefix."""
    return Record(
        topic,
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        message.timestamp()[1],
    )
