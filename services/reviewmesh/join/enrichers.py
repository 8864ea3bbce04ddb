"""Asks the broker which accepted reviews an enricher has finished, beside the polling thread.

Through consumers that never join, as `lag` does: librdkafka's admin client can end the process over
a group's coordinator that timed out.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from reviewmesh import metrics
from reviewmesh.clock import is_over
from reviewmesh.kafka import clients as kafka
from reviewmesh.loop.ledger import restore
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import ACCEPTED, ENRICHER_GROUPS

CALL_TIMEOUT_S = 5.0
# A review that was overtaken may wait for hours.
ASK_EVERY_S = 5.0

TaskPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Finished:
    """The offsets that a task's enricher has finished in a partition of accepted reviews."""

    offset: int
    beyond: frozenset[int] = frozenset()
    # Kafka's id of the accepted topic of these offsets, shortened.
    topic_id: int = 0

    def covers(self, offset: int) -> bool:
        return offset < self.offset or offset in self.beyond


class EnricherLedgers:
    """At most one open request per task and partition. Used from the polling thread."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledgers")
        # Used by that thread only.
        self._of_task: dict[str, Any] = {}
        self._replaced = settings.kafka.certificates.changes()
        self._questions: dict[TaskPartition, Future[Finished | None]] = {}
        self._not_before: dict[TaskPartition, float] = {}

    def ask(self, task: str, partition: int) -> None:
        asked = (task, partition)
        now = self._clock()
        if asked in self._questions:
            return
        if not is_over(self._not_before.get(asked, 0.0), now, ASK_EVERY_S):
            return
        self._not_before[asked] = now + ASK_EVERY_S
        metrics.ENRICHERS_ASKED.labels(task).inc()
        self._questions[asked] = self._thread.submit(self._committed, task, partition)

    def answers(self, partition: int) -> list[tuple[str, Finished]]:
        """(task, finished) of answered requests; a failed request is dropped."""
        found = []
        for asked, question in list(self._questions.items()):
            if asked[1] == partition and question.done():
                del self._questions[asked]
                finished = question.result()
                if finished is not None:
                    found.append((asked[0], finished))
        return found

    def forget(self, partition: int) -> None:
        for asked in [asked for asked in self._not_before if asked[1] == partition]:
            self._not_before.pop(asked)
            self._questions.pop(asked, None)

    def stop(self) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    # -- in the thread -----------------------------------------------------------------------

    def _committed(self, task: str, partition: int) -> Finished | None:
        """None where nothing is committed, or without an answer."""
        topic = self._settings.prefix + ACCEPTED
        try:
            (at,) = self._consumer(task).committed(
                [TopicPartition(topic, partition)], timeout=CALL_TIMEOUT_S
            )
        except KafkaException:
            return None
        if at.error is not None or at.offset < 0:
            return None
        restored = restore(at.offset, at.metadata)
        return Finished(at.offset, restored.finished, restored.notes.topic_id)

    def _consumer(self, task: str) -> Any:
        if self._replaced.found():
            self._close()
        if task not in self._of_task:
            # Under read_committed the answer would wait for the end of an open transaction. Offsets
            # of open transactions are not part of the answer in any case.
            options = kafka.reader_options(self._settings) | {
                "group.id": f"{self._settings.prefix}{ENRICHER_GROUPS[task]}",
                "isolation.level": "read_uncommitted",
            }
            self._of_task[task] = kafka.make_consumer(options, lambda error: None)
        return self._of_task[task]

    def _close(self) -> None:
        for consumer in self._of_task.values():
            consumer.close()
        self._of_task.clear()
