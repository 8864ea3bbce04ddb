"""Reads the topics and keeps the index of places up to date."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException

from reviewmesh.avro.codec import DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.places import TOPICS, Batch, PlaceIndex, hash_of
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record
from reviewmesh.query.connection import Connection
from reviewmesh.query.deadletters import DeadLetter
from reviewmesh.query.errors import CannotReach
from reviewmesh.query.reading import EndReached, Reader, offsets, partitions_of, reader
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, INSIGHTS, RAW

WRITE_EVERY_S = 0.3
BATCH_RECORDS = 20_000
AGAIN_AFTER_S = 2.0
# Retention deletes whole segments, so seldom is often enough.
DROP_EVERY_S = 600.0
NO_BUSINESS = ""


class Indexing:
    """A thread; a broker that is away is waited for."""

    def __init__(self, mesh: Mesh, index: PlaceIndex, log: structlog.stdlib.BoundLogger) -> None:
        self._mesh = mesh
        self._index = index
        self._log = log
        self._stop = threading.Event()
        self._ends: dict[MeshPartition, int] = {}
        self._positions: dict[MeshPartition, int] = {}
        self._problem = "has not begun"
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    @property
    def problem(self) -> str:
        """Why it does not go on; empty while it does."""
        return self._problem

    @property
    def behind(self) -> int:
        """Records that the topics held at the start of reading and that are not in the index."""
        ends = dict(self._ends)
        return sum(max(0, end - self._positions.get(at, 0)) for at, end in ends.items())

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow(self._mesh.connection())
            except (CannotReach, KafkaException, RegistryUnavailable) as error:
                self._problem = str(error)
            except Exception as error:  # noqa: BLE001 - said in the log and on the page
                self._problem = f"{type(error).__name__}: {error}"
                self._log.exception("the index of places failed; it is tried again")
            self._stop.wait(AGAIN_AFTER_S)

    def _follow(self, connection: Connection) -> None:
        self._index.begin(connection.admin.list_topics(timeout=5).cluster_id or "")
        wanted = partitions_of(connection, *TOPICS, INSIGHTS)
        wanted = [at for at in wanted if connection.topic(at.topic) in connection.found]
        self._ends = offsets(connection, wanted)
        positions = self._index.positions()
        for topic in {at.topic for at, end in self._ends.items() if positions.get(at, 0) > end}:
            self._index.forget(topic)
        positions = self._index.positions()
        self._positions = {at: positions.get(at, 0) for at in wanted}
        began = time.monotonic()
        with reader(connection) as opened:
            opened.assign({at: positions.get(at, OFFSET_BEGINNING) for at in wanted})
            self._problem = ""
            self._take_turns(connection, opened, began)

    def _take_turns(self, connection: Connection, opened: Reader, began: float) -> None:
        batch, written_at, dropped_at = Batch(), time.monotonic(), 0.0
        caught_up = False
        while not self._stop.is_set():
            for item in opened.poll():
                if isinstance(item, EndReached):
                    batch.positions[item.partition] = item.offset
                    continue
                at = MeshPartition(item.topic, item.partition)
                batch.positions[at] = item.offset + 1
                _add(batch, connection, item)
            now = time.monotonic()
            full = len(batch.places) + len(batch.letters) >= BATCH_RECORDS
            if not full and (now - written_at < WRITE_EVERY_S or not batch.positions):
                continue
            self._index.take(batch)
            self._positions.update(batch.positions)
            batch, written_at = Batch(), now
            if not caught_up and not self.behind:
                caught_up = True
                self._log.info(
                    "the index has caught up",
                    seconds=round(now - began, 1),
                    bytes=self._index.size(),
                )
            if caught_up and now - dropped_at > DROP_EVERY_S:
                self._index.drop_before(_starts(connection, list(self._positions)))
                dropped_at = now


def _starts(connection: Connection, wanted: list[MeshPartition]) -> Mapping[MeshPartition, int]:
    return offsets(connection, wanted, OFFSET_BEGINNING)


def _add(batch: Batch, connection: Connection, record: Record) -> None:
    if record.topic == INSIGHTS:
        _add_insight(batch, connection, record)
        return
    review: str | bytes | None = record.key
    if record.topic == DEAD_LETTER:
        review = _add_letter(batch, connection, record)
    if review is not None:
        number = TOPICS.index(record.topic)
        batch.places.append((hash_of(review), number, record.partition, record.offset))


def _add_letter(batch: Batch, connection: Connection, record: Record) -> str | None:
    """The id of its review, if it is known."""
    try:
        content = connection.codec(DEAD_LETTER).decode(record.value or b"")
    except DecodeError:
        return None
    letter = DeadLetter(record.partition, record.offset, record.timestamp_ms, content)
    business = _business_of(connection, content)
    batch.letters.append(
        (
            *(record.partition, record.offset, letter.since_ms),
            *(content["stage"] or "", content["cause"] or "", business),
        )
    )
    return content["review_id"] or None


def _business_of(connection: Connection, letter: Mapping[str, Any]) -> str:
    """As far as its record can be read."""
    if letter["topic"] not in (RAW, ACCEPTED) or letter["value"] is None:
        return NO_BUSINESS
    try:
        return connection.codec(letter["topic"]).decode(letter["value"])["business_id"] or ""
    except (DecodeError, RegistryUnavailable):
        return NO_BUSINESS


def _add_insight(batch: Batch, connection: Connection, record: Record) -> None:
    try:
        content = connection.codec(INSIGHTS).decode(record.value or b"")
    except DecodeError:
        return
    key = (content["business_id"] or NO_BUSINESS, content["window_start"])
    if record.value is None or not content["reviews"]:
        batch.insights_gone.append(key)
    else:
        batch.insights.append((*key, json.dumps(content)))
