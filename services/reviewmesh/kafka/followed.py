"""A compacted topic that every process follows whole, in a thread and without a group."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.reader import record_of
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.settings import Settings

POLL_S = 0.5
POLL_RECORDS = 500
NEW_CLIENT_AFTER_S = 1.0


class FollowedTopic:
    """Hands every committed record to `take`, in the thread that follows.

    `take` raises Unavailable to get the same record again; a record for which it raises anything
    else is skipped.

    `is_current` is False until the topic was read to its end, and again after an error.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partitions: int,
        take: Callable[[Record], None],
        log: structlog.stdlib.BoundLogger,
        since: Mapping[int, int] | None = None,
    ) -> None:
        """`since`: offsets by partition; without one, from the first record that is kept."""
        self._options = kafka.reader_options(settings) | {"fetch.wait.max.ms": "500"}
        self._certificates = settings.kafka.certificates
        self._topic = topic
        self._name = settings.prefix + topic
        self._positions = dict.fromkeys(range(partitions), 0) | dict(since or {})
        self._unread = set(self._positions)
        self._take = take
        self._log = log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow-{topic}", daemon=True)
        self.is_current = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, or after two polls."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * POLL_S + NEW_CLIENT_AFTER_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (KafkaException, Unavailable) as error:
                reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
                self.is_current, self._unread = False, set(self._positions)
                self._log.warning(
                    "cannot read the topic, trying again", topic=self._name, reason=reason
                )
                # A new client each time: one may lose every address of a broker that is back.
                self._stopping.wait(NEW_CLIENT_AFTER_S)

    def _follow(self) -> None:
        """Returns to go on with a new client, after a certificate was replaced.

        Raises KafkaException, and Unavailable.
        """
        replaced = self._certificates.changes()
        consumer: Any = kafka.make_consumer(self._options, lambda error: None)
        try:
            consumer.assign(
                [TopicPartition(self._name, *place) for place in self._positions.items()]
            )
            while not self._stopping.is_set() and not replaced.found():
                for message in consumer.consume(POLL_RECORDS, POLL_S):
                    self._receive(message)
        finally:
            consumer.close()

    def _hand_on(self, record: Record) -> None:
        """A record that cannot be taken costs itself only."""
        try:
            self._take(record)
        except (KafkaException, Unavailable):
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it costs this record only
            self._log.exception(
                "a record is skipped",
                topic=self._name,
                partition=record.partition,
                offset=record.offset,
            )

    def _receive(self, message: Any) -> None:
        error = message.error()
        if error is None:
            self._hand_on(record_of(self._topic, message))
            self._positions[message.partition()] = message.offset() + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            self._unread.discard(message.partition())
            self.is_current = self.is_current or not self._unread
        else:
            raise KafkaException(error)
