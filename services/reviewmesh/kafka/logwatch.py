"""Queries every few seconds, in its own thread, which topics exist and where the logs that a
process
reads begin and end.

The consumer alone cannot tell: a paused partition is not fetched, an open transaction looks like a
log without new records, and a topic that was deleted and created again like one that is read to
its end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException

from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.offsets import log_bounds
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.topicids import TopicFinder
from reviewmesh.settings import Settings

EVERY_S = 3.0
CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Log:
    """One partition's log, as the broker last reported it."""

    start: int
    # The last stable offset: a reader of committed records gets no further.
    stable: int
    end: int
    # Monotonic seconds, before the broker was asked.
    asked_at: float
    # Since when (monotonic seconds) `stable` has not moved though records follow it; None while it
    # is the end.
    held_since: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of one query; topics are named without the prefix."""

    # Monotonic seconds, before the broker was asked.
    looked_at: float = 0.0
    # By topic: Kafka's id of it, shortened.
    topic_ids: Mapping[str, int] = field(default_factory=dict)
    # Topics of the process that do not exist.
    missing: tuple[str, ...] = ()
    logs: Mapping[MeshPartition, Log] = field(default_factory=dict)


class LogWatch:
    """`watch` sets the partitions, `seen` is the latest result. Used from any thread."""

    def __init__(
        self, settings: Settings, topics: Collection[str], log: structlog.stdlib.BoundLogger
    ) -> None:
        """`topics`: all that the process reads or writes."""
        self._settings = settings
        self._topics = topics
        self._prefix = settings.prefix
        self._log = log
        self._wanted: tuple[MeshPartition, ...] = ()
        self._seen = Seen()
        self._clients: list[Any] = []
        self._replaced = settings.kafka.certificates.changes()
        self._stopped = False
        # Set to query before the interval is over.
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logwatch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def watch(self, partitions: Iterable[MeshPartition]) -> None:
        wanted = tuple(partitions)
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    @property
    def seen(self) -> Seen:
        return self._seen

    def _run(self) -> None:
        """While the broker is away the last result stays; the polling thread reports the outage."""
        finder = TopicFinder(self._settings.kafka)
        try:
            while not self._stopped:
                self._wake.wait(EVERY_S)
                self._wake.clear()
                try:
                    self._seen = self._look(finder, self._wanted)
                except KafkaException as error:
                    self._log.debug("topics could not be listed", reason=error.args[0].str())
        finally:
            self._close_clients()

    def _look(self, finder: TopicFinder, wanted: Collection[MeshPartition]) -> Seen:
        """Raises KafkaException where the broker does not list its topics."""
        now = time.monotonic()
        found = finder.find([self._prefix + name for name in self._topics], CALL_TIMEOUT_S)
        ids = {name.removeprefix(self._prefix): topic.id for name, topic in found.items()}
        missing = tuple(name for name in self._topics if name not in ids)
        if ids != self._seen.topic_ids:
            # A client keeps the leader epochs of a deleted topic, and is fenced by the new one.
            self._close_clients()
        try:
            logs: Mapping[MeshPartition, Log] = self._logs(
                [at for at in wanted if at.topic in ids], now
            )
        except KafkaException as error:
            self._log.debug("end offsets could not be read", reason=error.args[0].str())
            self._close_clients()
            before = self._seen
            logs = {
                at: log
                for at, log in before.logs.items()
                if at.topic in ids and ids[at.topic] == before.topic_ids.get(at.topic)
            }
        return Seen(now, ids, missing, logs)

    def _logs(self, wanted: Collection[MeshPartition], now: float) -> dict[MeshPartition, Log]:
        if not wanted:
            return {}
        partitions = [at.on_broker(self._prefix) for at in wanted]
        logs = {}
        for found, bounds in log_bounds(*self._two_clients(), partitions, CALL_TIMEOUT_S).items():
            if not isinstance(bounds, KafkaError):
                at = found.in_mesh(self._prefix)
                held = self._held_since(self._seen.logs.get(at), bounds.stable, bounds.end, now)
                logs[at] = Log(bounds.start, bounds.stable, bounds.end, now, held)
        if len(logs) < len(wanted):
            self._close_clients()
        return logs

    def _two_clients(self) -> tuple[Any, Any]:
        """Consumers with isolation level `read_committed` and `read_uncommitted`."""
        if self._replaced.found():
            self._close_clients()
        if not self._clients:
            options = kafka.reader_options(self._settings)
            self._clients = [
                kafka.make_consumer(options | {"isolation.level": level}, lambda error: None)
                for level in ("read_committed", "read_uncommitted")
            ]
        committed, everything = self._clients
        return committed, everything

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients = []

    def _held_since(self, before: Log | None, stable: int, end: int, now: float) -> float | None:
        if stable == end:
            return None
        if before is None or before.stable != stable or before.held_since is None:
            return now
        return before.held_since
