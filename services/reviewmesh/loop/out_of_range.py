"""Moves committed offsets that are out of range into their log.

Retention, `delete-records` and topics that are deleted and created again remove offsets that were
not read yet. These are counted, logged once, and skipped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog
from confluent_kafka import KafkaException

from reviewmesh import metrics
from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.offsets import start_and_end
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.kafka.record import Unavailable
from reviewmesh.kafka.topicids import TopicFinder, is_another
from reviewmesh.loop.stage import Start
from reviewmesh.settings import Settings

CALL_TIMEOUT_S = 5.0


class OutOfRangeOffsets:
    """Queries the broker with a consumer that joins no group. Used from any thread."""

    def __init__(self, settings: Settings, service: str, log: structlog.stdlib.BoundLogger) -> None:
        self._prefix = settings.prefix
        self._options = kafka.reader_options(settings)
        self._finder = TopicFinder(settings.kafka)
        self._service = service
        self._log = log

    def correct(self, partition: int, starts: dict[str, Start]) -> dict[str, int]:
        """Move every start into its log; returns the ends of the logs.

        Raises Unavailable.
        """
        ends = {}
        # A new consumer each time, because an old one may know leader epochs of a deleted topic.
        consumer: Any = kafka.make_consumer(self._options, lambda error: None)
        try:
            ids = self._ids(list(starts))
            for topic, start in starts.items():
                target = BrokerPartition(self._prefix + topic, partition)
                low, high = start_and_end(consumer, target, CALL_TIMEOUT_S)
                starts[topic] = self._within(
                    partition, start, topic_id=ids[topic], low=low, high=high
                )
                ends[topic] = high
        except KafkaException as error:
            raise Unavailable(
                f"log ends of partition {partition}: {error.args[0].str()}"
            ) from error
        finally:
            consumer.close()
        return ends

    def _ids(self, topics: list[str]) -> dict[str, int]:
        found = self._finder.find([self._prefix + name for name in topics], CALL_TIMEOUT_S)
        missing = [self._prefix + name for name in topics if self._prefix + name not in found]
        if missing:
            raise Unavailable(
                f"topics missing: {', '.join(missing)}; run `reviewmesh topics apply`"
            )
        return {name: found[self._prefix + name].id for name in topics}

    def _within(self, partition: int, start: Start, topic_id: int, low: int, high: int) -> Start:
        if start.offset is None:
            return Start(start.topic, low, topic_id=topic_id)
        # A new log may be as long as the old one, so offsets alone cannot tell them apart.
        if is_another(start.topic_id, topic_id) or start.offset > high:
            self._log.warning(
                "the topic was deleted and created again: reading it from its beginning",
                topic=start.topic,
                partition=partition,
                committed=start.offset,
                end=high,
            )
            return Start(start.topic, low, topic_id=topic_id)
        if start.offset < low:
            self.skipped(start.topic, partition, start.offset, low)
            finished = frozenset(offset for offset in start.finished if offset >= low)
            return replace(start, offset=low, finished=finished, topic_id=topic_id)
        return replace(start, topic_id=topic_id)

    def skipped(self, topic: str, partition: int, first: int, low: int) -> None:
        """Log and count that offsets from `first` up to `low` were deleted before they were
        read."""
        metrics.SKIPPED_OFFSETS.labels(self._service, topic).inc(low - first)
        self._log.error(
            "offsets were deleted before they were read: skipping them",
            topic=topic,
            partition=partition,
            first=first,
            next=low,
            count=low - first,
        )
