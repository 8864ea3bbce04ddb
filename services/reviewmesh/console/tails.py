"""Follows a topic for a page that is open: a thread reads, a bounded queue waits for the page."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any

from confluent_kafka import KafkaException

from reviewmesh.avro.codec import DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.console.mesh import Mesh
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach
from reviewmesh.query.reading import offsets, partitions_of, reader
from reviewmesh.query.values import as_json, iso, schema_of
from reviewmesh.query.where.matching import matcher
from reviewmesh.query.where.reading import read_condition
from reviewmesh_schemas.names import ENRICHED, TASKS

# Reading pauses while so many wait for the page.
WAITING_AT_MOST = 500
AGAIN_AFTER_S = 2.0
LOOK_S = 0.2
TAILS_AT_MOST = 16
# Of one record; the story and `reviewmesh tail` show all of it.
SHOWN_CHARACTERS = 2_000


class TooManyTails(RuntimeError):
    """So many pages follow topics already."""


@dataclass(frozen=True, slots=True)
class TailLine:
    """One record, for people."""

    place: str
    at: str
    review_id: str
    text: str


Filter = Callable[[Record, Mapping[str, Any] | None], bool]


def filter_of(topic: str, condition: str, containing: str) -> Filter:
    """`condition`: of enriched reviews, as for `reviewmesh tail --where`. Raises BadCondition."""
    matches = None
    if condition and topic == ENRICHED:
        matches = matcher(read_condition(condition, TASKS[0], int(time.time() * 1000)))
    wanted = containing.encode()

    def passes(record: Record, content: Mapping[str, Any] | None) -> bool:
        # Avro stores text as it is.
        if wanted and wanted not in (record.value or b"") and wanted not in (record.key or b""):
            return False
        return matches is None or (content is not None and matches(content))

    return passes


class Tails:
    """Those that are open."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._places = threading.Semaphore(TAILS_AT_MOST)

    def open(self, topic: str, passes: Filter) -> Tail:
        """Raises TooManyTails."""
        if not self._places.acquire(blocking=False):
            raise TooManyTails(f"{TAILS_AT_MOST} pages follow topics; close one and try again")
        tail = Tail(self._mesh, topic, passes, self._places.release)
        tail.start()
        return tail


class Tail:
    """Records from now on. After the broker was away it goes on where it was."""

    def __init__(self, mesh: Mesh, topic: str, passes: Filter, closed: Callable[[], None]) -> None:
        self._mesh = mesh
        self._topic = topic
        self._passes = passes
        self._closed = closed
        self._lines: Queue[TailLine] = Queue(WAITING_AT_MOST)
        self._stop = threading.Event()
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def lines(self, timeout_s: float) -> list[TailLine]:
        """What has come, at least after the timeout."""
        found: list[TailLine] = []
        try:
            found.append(self._lines.get(timeout=timeout_s))
            while len(found) < WAITING_AT_MOST:
                found.append(self._lines.get_nowait())
        except Empty:
            pass
        return found

    def _run(self) -> None:
        positions: dict[MeshPartition, int] = {}
        try:
            while not self._stop.is_set():
                try:
                    connection = self._mesh.connection()
                    if not positions:
                        positions = offsets(connection, partitions_of(connection, self._topic))
                    self._follow(connection, positions)
                except (CannotReach, KafkaException, RegistryUnavailable) as error:
                    self.problem = str(error)
                    self._stop.wait(AGAIN_AFTER_S)
        finally:
            self._closed()

    def _follow(self, connection: Connection, positions: dict[MeshPartition, int]) -> None:
        codec, schema = connection.codec(self._topic), schema_of(self._topic)
        with reader(connection) as opened:
            opened.assign(positions)
            while not self._stop.is_set():
                for item in opened.poll():
                    self.problem = ""
                    if not isinstance(item, Record):
                        continue
                    content: Any = None
                    shown = "tombstone"
                    try:
                        content = None if item.value is None else codec.decode(item.value)
                    except DecodeError as error:
                        shown = f"cannot be decoded: {error}"
                    if self._passes(item, content):
                        if content is not None:
                            shown = json.dumps(as_json(schema, content), ensure_ascii=False)
                        self._put(_line(item, content, shown))
                    if self._stop.is_set():
                        return
                    positions[MeshPartition(item.topic, item.partition)] = item.offset + 1

    def _put(self, line: TailLine) -> None:
        while not self._stop.is_set():
            try:
                self._lines.put(line, timeout=LOOK_S)
                return
            except Full:
                continue


def _line(record: Record, content: Mapping[str, Any] | None, shown: str) -> TailLine:
    key = (record.key or b"").decode(errors="replace")
    review_id = (content or {}).get("review_id") or key
    if len(shown) > SHOWN_CHARACTERS:
        shown = f"{shown[:SHOWN_CHARACTERS]}… ({len(shown):,} characters)"
    return TailLine(
        place=f"{record.partition}/{record.offset}",
        at=iso(record.timestamp_ms),
        review_id=str(review_id)[:200],
        text=shown,
    )
