"""Reads topics of the mesh from outside: committed records, without a group."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition
from confluent_kafka import IsolationLevel as Isolation
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.batches import Prober, find_impassable
from reviewmesh.kafka.record import Record, Unavailable, headers_of
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 10.0
SILENCE_S = 20.0
POLL_S = 0.1
BATCH = 500

Spec: Any = OffsetSpec
LATEST, EARLIEST = Spec.latest(), Spec.earliest()

Place = tuple[str, int]
"""A topic without its prefix, and a partition."""


@dataclass(frozen=True)
class EndReached:
    """Everything that was committed before `offset` has been read."""

    place: Place
    offset: int


class Reader:
    """A consumer that is assigned by hand and commits nothing."""

    def __init__(self, connection: Connection) -> None:
        self._settings = connection.settings
        self._prefix = self._settings.prefix
        # The offset after the last record that came.
        self._positions: dict[Place, int] = {}
        options = kafka.reader_options(connection.settings) | {"log_level": "0"}
        self._consumer: Any = kafka.make_consumer(options, lambda error: None)

    def assign(self, starts: Mapping[Place, int]) -> None:
        """From these offsets, or from OFFSET_BEGINNING."""
        self._positions = {place: offset for place, offset in starts.items() if offset >= 0}
        self._consumer.assign(
            [
                TopicPartition(self._prefix + topic, partition, offset)
                for (topic, partition), offset in starts.items()
            ]
        )

    def poll(self) -> Iterator[Record | EndReached]:
        """What came within a short while. Raises CannotReach."""
        for message in self._consumer.consume(BATCH, POLL_S):
            error = message.error()
            place = (str(message.topic()).removeprefix(self._prefix), message.partition())
            if error is None:
                self._positions[place] = message.offset() + 1
                yield Record(
                    place[0],
                    place[1],
                    message.offset(),
                    message.key(),
                    message.value(),
                    headers_of(message),
                    message.timestamp()[1],
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                yield EndReached(place, message.offset())
            elif error.code() in kafka.REFUSED_BATCH and message.offset() >= 0:
                self._pass_over(place, self._positions.get(place, message.offset()))
            elif not error.retriable():
                raise KafkaException(error)

    def _pass_over(self, place: Place, at: int) -> None:
        """The client would give the same error for ever."""
        try:
            with Prober(self._settings, *place) as prober:
                batch = find_impassable(prober, at)
        except Unavailable as error:
            raise CannotReach(str(error)) from error
        topic, partition = place
        if batch is not None:
            log.warning("%s/%s: passed over %s", topic, partition, batch.extent)
            self._positions[place] = batch.next
        following = self._positions.get(place, at)
        self._consumer.seek(TopicPartition(self._prefix + topic, partition, following))

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def reader(connection: Connection) -> Iterator[Reader]:
    opened = Reader(connection)
    try:
        yield opened
    finally:
        opened.close()


def places(connection: Connection, *topics: str) -> list[Place]:
    """Every partition of these topics."""
    return [
        (topic, partition)
        for topic in topics
        for partition in range(connection.partitions_found(topic))
    ]


def offsets(
    connection: Connection,
    wanted: Iterable[Place],
    spec: Any = LATEST,
    isolation: Isolation = Isolation.READ_COMMITTED,
) -> dict[Place, int]:
    """The end of each partition, or what `spec` names. Raises KafkaException."""
    of_place = {
        TopicPartition(connection.topic(topic), partition): (topic, partition)
        for topic, partition in wanted
    }
    admin: Any = connection.admin
    futures = admin.list_offsets(
        dict.fromkeys(of_place, spec), isolation_level=isolation, request_timeout=CALL_TIMEOUT_S
    )
    return {of_place[at]: future.result(CALL_TIMEOUT_S).offset for at, future in futures.items()}


def read_until(
    connection: Connection, starts: Mapping[Place, int], ends: Mapping[Place, int]
) -> Iterator[Record]:
    """The committed records from `starts` up to `ends`. Raises CannotReach on a long silence."""
    unread = {place for place, start in starts.items() if start < ends[place]}
    if not unread:
        return
    with reader(connection) as opened:
        opened.assign({place: starts[place] for place in unread})
        deadline = time.monotonic() + SILENCE_S
        while unread:
            for item in opened.poll():
                deadline = time.monotonic() + SILENCE_S
                if isinstance(item, EndReached):
                    if item.offset >= ends[item.place]:
                        unread.discard(item.place)
                    continue
                place = (item.topic, item.partition)
                if item.offset < ends[place]:
                    yield item
                if item.offset + 1 >= ends[place]:
                    unread.discard(place)
            if time.monotonic() > deadline:
                raise CannotReach(
                    f"the broker gave nothing for {SILENCE_S:g} s of {sorted(unread)}; "
                    "see `reviewmesh ps`"
                )


def read_all(connection: Connection, wanted: Iterable[Place]) -> Iterator[Record]:
    """Every committed record of these partitions, as far as they reach now."""
    listed = list(wanted)
    ends = offsets(connection, listed)
    starts = offsets(connection, listed, EARLIEST)
    yield from read_until(connection, starts, ends)


def follow(
    connection: Connection, topic: str, from_beginning: bool, timeout_s: float | None
) -> Iterator[Record]:
    """Records of a topic as they are committed; ends at the timeout."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    if from_beginning:
        starts = dict.fromkeys(places(connection, topic), OFFSET_BEGINNING)
    else:
        starts = offsets(connection, places(connection, topic))
    with reader(connection) as opened:
        opened.assign(starts)
        while deadline is None or time.monotonic() < deadline:
            for item in opened.poll():
                if isinstance(item, Record):
                    yield item
