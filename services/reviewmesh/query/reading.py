"""Reads committed records of the mesh's topics, without joining a group."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.batches import Prober, find_impassable
from reviewmesh.kafka.offsets import offsets_at
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record, Unavailable, headers_of
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 10.0
SILENCE_S = 20.0
POLL_S = 0.1
BATCH = 500


@dataclass(frozen=True)
class EndReached:
    """All committed records before `offset` have been read."""

    partition: MeshPartition
    offset: int


class Reader:
    """A consumer without a group, which commits nothing."""

    def __init__(self, connection: Connection) -> None:
        self._settings = connection.settings
        self._prefix = self._settings.prefix
        # The offset after the last record received.
        self._positions: dict[MeshPartition, int] = {}
        options = kafka.reader_options(connection.settings) | {"log_level": "0"}
        self._consumer: Any = kafka.make_consumer(options, lambda error: None)

    def assign(self, starts: Mapping[MeshPartition, int]) -> None:
        """Read from these offsets, which may be OFFSET_BEGINNING."""
        self._positions = {partition: offset for partition, offset in starts.items() if offset >= 0}
        self._consumer.assign(
            [
                TopicPartition(self._prefix + topic, partition, offset)
                for (topic, partition), offset in starts.items()
            ]
        )

    def poll(self) -> Iterator[Record | EndReached]:
        """Records and ends that arrive within POLL_S. Raises CannotReach."""
        for message in self._consumer.consume(BATCH, POLL_S):
            error = message.error()
            partition = MeshPartition(
                str(message.topic()).removeprefix(self._prefix), message.partition()
            )
            if error is None:
                self._positions[partition] = message.offset() + 1
                yield Record(
                    topic=partition.topic,
                    partition=partition.partition,
                    offset=message.offset(),
                    key=message.key(),
                    value=message.value(),
                    headers=headers_of(message),
                    timestamp_ms=message.timestamp()[1],
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                yield EndReached(partition, message.offset())
            elif error.code() in kafka.REFUSED_BATCH and message.offset() >= 0:
                self._pass_over(partition, self._positions.get(partition, message.offset()))
            elif not error.retriable():
                raise KafkaException(error)

    def _pass_over(self, partition: MeshPartition, offset: int) -> None:
        """Seek past an unreadable batch: the client would return the same error at every fetch."""
        try:
            with Prober(self._settings, *partition) as prober:
                batch = find_impassable(prober, offset)
        except Unavailable as error:
            raise CannotReach(str(error)) from error
        if batch is not None:
            log.warning("%s/%s: skipped %s", *partition, batch.extent)
            self._positions[partition] = batch.next
        following = self._positions.get(partition, offset)
        self._consumer.seek(TopicPartition(*partition.on_broker(self._prefix), following))

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def reader(connection: Connection) -> Iterator[Reader]:
    opened = Reader(connection)
    try:
        yield opened
    finally:
        opened.close()


def partitions_of(connection: Connection, *topics: str) -> list[MeshPartition]:
    """Every partition of these topics."""
    return [
        MeshPartition(topic, partition)
        for topic in topics
        for partition in range(connection.partitions_found(topic))
    ]


def offsets(
    connection: Connection,
    wanted: Iterable[MeshPartition],
    at: int = OFFSET_END,
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> dict[MeshPartition, int]:
    """The end of each partition, or what `at` names; see `offsets_at`. Raises KafkaException."""
    prefix = connection.settings.prefix
    options = kafka.reader_options(connection.settings) | {"isolation.level": isolation}
    consumer: Any = kafka.make_consumer(options, lambda error: None)
    try:
        partitions = [partition.on_broker(prefix) for partition in wanted]
        found = offsets_at(consumer, partitions, at, CALL_TIMEOUT_S)
    finally:
        consumer.close()
    return {partition.in_mesh(prefix): offset for partition, offset in found.items()}


def read_until(
    connection: Connection, starts: Mapping[MeshPartition, int], ends: Mapping[MeshPartition, int]
) -> Iterator[Record]:
    """The committed records from `starts` up to `ends`. Raises CannotReach after SILENCE_S."""
    unread = {partition for partition, start in starts.items() if start < ends[partition]}
    if not unread:
        return
    with reader(connection) as opened:
        opened.assign({partition: starts[partition] for partition in unread})
        deadline = time.monotonic() + SILENCE_S
        while unread:
            something_came = False
            for item in opened.poll():
                something_came = True
                if isinstance(item, EndReached):
                    if item.offset >= ends[item.partition]:
                        unread.discard(item.partition)
                    continue
                partition = MeshPartition(item.topic, item.partition)
                if item.offset < ends[partition]:
                    yield item
                if item.offset + 1 >= ends[partition]:
                    unread.discard(partition)
            # The time that the caller takes between two records is no silence of the broker.
            if something_came:
                deadline = time.monotonic() + SILENCE_S
            elif time.monotonic() > deadline:
                raise CannotReach(
                    f"the broker sent nothing for {SILENCE_S:g} s of {sorted(unread)}; "
                    "see `reviewmesh ps`"
                )


def read_all(connection: Connection, wanted: Iterable[MeshPartition]) -> Iterator[Record]:
    """All committed records of these partitions, up to their current ends."""
    listed = list(wanted)
    ends = offsets(connection, listed)
    starts = offsets(connection, listed, OFFSET_BEGINNING)
    yield from read_until(connection, starts, ends)


def follow(
    connection: Connection, topic: str, from_beginning: bool, timeout_s: float | None
) -> Iterator[Record]:
    """Records of a topic as they are committed, until the timeout."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    if from_beginning:
        starts = dict.fromkeys(partitions_of(connection, topic), OFFSET_BEGINNING)
    else:
        starts = offsets(connection, partitions_of(connection, topic))
    with reader(connection) as opened:
        opened.assign(starts)
        while deadline is None or time.monotonic() < deadline:
            for item in opened.poll():
                if isinstance(item, Record):
                    yield item
