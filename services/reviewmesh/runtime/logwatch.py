"""Looks every few seconds where the logs that a process reads begin and end, in its own thread.

The consumer alone does not tell: a paused partition is not fetched, an open transaction looks like
a log without new records, and a topic that was deleted and made anew like one that is read to its
end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException, TopicPartition
from confluent_kafka import TopicCollection as Topics

from reviewmesh.runtime import kafka
from reviewmesh.runtime.settings import Settings

EVERY_S = 3.0
CALL_TIMEOUT_S = 10.0

Place = tuple[str, int]
"""A topic without its prefix, and a partition."""


@dataclass(frozen=True, slots=True)
class Log:
    """One partition's log as the broker told it last."""

    start: int
    # What a reader of committed records can reach: the first open transaction ends it.
    stable: int
    end: int
    topic_id: str
    # Since when (monotonic seconds) `stable` has not moved though records lie behind it; None while
    # it is the end.
    held_since: float | None = None


class LogWatch:
    """`watch` says what to look at, `logs` gives what was seen last. Used from any thread."""

    def __init__(self, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
        self._settings = settings
        self._prefix = settings.prefix
        self._log = log
        self._wanted: tuple[Place, ...] = ()
        self._logs: Mapping[Place, Log] = {}
        self._stopped = False
        # Set when there is something to look at before the time.
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logwatch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def watch(self, places: Iterable[Place]) -> None:
        wanted = tuple(places)
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    @property
    def logs(self) -> Mapping[Place, Log]:
        return self._logs

    def _run(self) -> None:
        """A broker that is away leaves what was seen last; the polling thread tells of it."""
        options = kafka.reader_options(self._settings)
        committed: Any = kafka.make_consumer(options, lambda error: None)
        everything: Any = kafka.make_consumer(
            options | {"isolation.level": "read_uncommitted"}, lambda error: None
        )
        admin = kafka.make_admin(self._settings.kafka)
        try:
            while not self._stopped:
                self._wake.wait(EVERY_S)
                self._wake.clear()
                try:
                    self._logs = self._look(committed, everything, admin, self._wanted)
                except KafkaException as error:
                    self._log.debug("log ends are not known", reason=error.args[0].str())
        finally:
            committed.close()
            everything.close()

    def _look(
        self, committed: Any, everything: Any, admin: Any, wanted: Collection[Place]
    ) -> dict[Place, Log]:
        if not wanted:
            return {}
        asked = ((everything, OFFSET_BEGINNING), (committed, OFFSET_END), (everything, OFFSET_END))
        starts, stables, ends = (self._offsets(client, wanted, at) for client, at in asked)
        ids = self._topic_ids(admin, {topic for topic, _ in wanted})
        now = time.monotonic()
        logs = {}
        for place in wanted:
            if place[0] in ids and min(starts[place], stables[place], ends[place]) >= 0:
                stable, end = stables[place], max(stables[place], ends[place])
                held = self._held_since(self._logs.get(place), stable, end, now)
                logs[place] = Log(starts[place], stable, end, ids[place[0]], held)
        return logs

    def _held_since(self, before: Log | None, stable: int, end: int, now: float) -> float | None:
        if stable == end:
            return None
        if before is None or before.stable != stable or before.held_since is None:
            return now
        return before.held_since

    def _offsets(self, client: Any, wanted: Collection[Place], at: int) -> dict[Place, int]:
        partitions = [TopicPartition(self._prefix + topic, number, at) for topic, number in wanted]
        found = client.offsets_for_times(partitions, timeout=CALL_TIMEOUT_S)
        return {
            (item.topic.removeprefix(self._prefix), item.partition): (
                -1 if item.error is not None else item.offset
            )
            for item in found
        }

    def _topic_ids(self, admin: Any, topics: Collection[str]) -> dict[str, str]:
        """Of those that exist. A topic that is deleted and made anew gets another id."""
        names = Topics([self._prefix + topic for topic in topics])
        futures = admin.describe_topics(names, request_timeout=CALL_TIMEOUT_S)
        ids = {}
        for name, future in futures.items():
            try:
                ids[name.removeprefix(self._prefix)] = str(future.result(CALL_TIMEOUT_S).topic_id)
            except KafkaException:
                continue
        return ids
