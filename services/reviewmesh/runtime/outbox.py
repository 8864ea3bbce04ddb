"""Finished units on their way out: gathered, and committed as one transaction at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from confluent_kafka import TopicPartition

from reviewmesh.runtime import metrics
from reviewmesh.runtime.inputs import Inputs
from reviewmesh.runtime.record import Output, Unit
from reviewmesh.runtime.transactions import TransactionalProducer

COMMIT_EVERY_S = 0.05
LONGEST_COMMIT_EVERY_S = 0.25
IDLE_COMMIT_EVERY_S = 1.0
COMMIT_UNITS = 2_000
# A transaction costs the same few requests and markers whatever it holds. When they take longer,
# there is load: larger and fewer of them leave the machine to the work itself.
SHARE_OF_TIME_IN_TRANSACTIONS = 0.1


class Outbox:
    def __init__(
        self, service: str, prefix: str, inputs: Inputs, producer: TransactionalProducer
    ) -> None:
        self._service = service
        self._prefix = prefix
        self._inputs = inputs
        self._producer = producer
        self._units: deque[Unit] = deque()
        self._last_commit = 0.0
        self._commit_every_s = COMMIT_EVERY_S

    def __len__(self) -> int:
        return len(self._units)

    def add(self, units: Iterable[Unit]) -> None:
        self._units.extend(units)

    def drop(self, partition: int) -> None:
        self._units = deque(unit for unit in self._units if unit.partition != partition)

    def is_due(self) -> bool:
        since = time.monotonic() - self._last_commit
        if self._units:
            return since >= self._commit_every_s or len(self._units) >= COMMIT_UNITS
        return since >= IDLE_COMMIT_EVERY_S

    def commit(self, group_metadata: object) -> None:
        """One transaction: outputs of finished units and the offsets that they allow.

        Raises Aborted, after which the same units are tried again, or OutcomeUnknown.
        """
        units = [self._units[index] for index in range(min(len(self._units), COMMIT_UNITS))]
        self._finish(units)
        dirty = [(item, item.ledger.commit()) for item in self._inputs if item.is_dirty()]
        started = time.monotonic()
        if units or dirty:
            outputs = [output for unit in units for output in unit.outputs]
            offsets = [
                TopicPartition(
                    self._prefix + item.topic, item.partition, commit.offset, commit.metadata
                )
                for item, commit in dirty
            ]
            try:
                self._producer.commit(outputs, offsets, group_metadata)
            finally:
                self._took(started)
            for unit in units:
                self._units.popleft()
                if unit.committed is not None:
                    unit.committed()
            for item, commit in dirty:
                item.committed_as = commit
            self._measure(outputs)
        self._last_commit = time.monotonic()

    def _finish(self, units: list[Unit]) -> None:
        for unit in units:
            for topic, offset in unit.finished:
                item = self._inputs.get(topic, unit.partition)
                if item is not None:
                    item.ledger.finish(offset)

    def _took(self, started: float) -> None:
        self._last_commit = time.monotonic()
        duration = self._last_commit - started
        metrics.TRANSACTION_SECONDS.labels(self._service).observe(duration)
        self._commit_every_s = min(
            max(COMMIT_EVERY_S, duration / SHARE_OF_TIME_IN_TRANSACTIONS), LONGEST_COMMIT_EVERY_S
        )

    def _measure(self, outputs: list[Output]) -> None:
        by_topic: dict[str, int] = {}
        for output in outputs:
            by_topic[output.topic] = by_topic.get(output.topic, 0) + 1
        for topic, count in by_topic.items():
            metrics.OUTPUTS.labels(self._service, topic).inc(count)
