"""Collects finished units and commits them, one transaction at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable

from confluent_kafka import TopicPartition

from reviewmesh import metrics
from reviewmesh.kafka.record import Output, Unit
from reviewmesh.kafka.transactions import Aborted, TransactionalProducer
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.ledger import Commit, Notes
from reviewmesh.loop.stage import Stage
from reviewmesh_schemas.names import DEAD_LETTER, REPLAYED

COMMIT_EVERY_S = 0.05
LONGEST_COMMIT_EVERY_S = 0.25
IDLE_COMMIT_EVERY_S = 1.0
COMMIT_UNITS = 2_000
# A transaction costs the same requests and markers whatever its size. Slow transactions mean that
# the machine is loaded, and fewer and larger ones reduce the load.
SHARE_OF_TIME_IN_TRANSACTIONS = 0.1
LONGEST_RETRY_S = 5.0
# A rejected output or a record that is too large causes fewer aborts in a row.
ABORTS_BEFORE_NOT_READY = 4
PROBE_POSTPONED_EVERY_S = 5.0


class OutputRejected(Exception):
    """The broker rejects an output of this unit, so every transaction with it is aborted."""

    def __init__(self, unit: Unit, reason: str) -> None:
        super().__init__(reason)
        self.unit = unit

    @property
    def is_set_aside(self) -> bool:
        """Whether the unit writes a dead letter: then a topic's configuration is wrong."""
        outputs = self.unit.outputs
        only_letters = all(output.topic in (DEAD_LETTER, REPLAYED) for output in outputs)
        return self.unit.is_set_aside or (bool(outputs) and only_letters)


class Outbox:
    """Used by the polling thread."""

    def __init__(
        self, stage: Stage, prefix: str, inputs: Inputs, producer: TransactionalProducer
    ) -> None:
        self._stage = stage
        self._prefix = prefix
        self._inputs = inputs
        self._producer = producer
        self._units: deque[Unit] = deque()
        self._last_commit = 0.0
        self._commit_every_s = COMMIT_EVERY_S
        # Most units of the next transaction; fewer while a rejected output is searched for.
        self._max_units = COMMIT_UNITS
        self._aborts_in_a_row = 0
        # Dead letters that their topic rejects until an operator corrects its configuration. One of
        # them, the probe, is retried every PROBE_POSTPONED_EVERY_S. When it is accepted, the others
        # follow.
        self._postponed: deque[Unit] = deque()
        self._probe: Unit | None = None
        self._probe_at = 0.0

    def __len__(self) -> int:
        return len(self._units)

    @property
    def keeps_aborting(self) -> bool:
        return self._aborts_in_a_row >= ABORTS_BEFORE_NOT_READY

    @property
    def has_postponed(self) -> bool:
        return bool(self._postponed) or self._probe is not None

    def holds(self, partition: int) -> bool:
        """Whether finished units of the partition wait to be committed."""
        return any(
            unit.partition == partition
            for units in (self._units, self._postponed)
            for unit in units
        )

    def add(self, units: Iterable[Unit]) -> None:
        self._units.extend(units)

    def drop(self, partition: int) -> None:
        """Drop the units of a partition: its records are read again by its next owner."""
        self._units = deque(unit for unit in self._units if unit.partition != partition)
        self._postponed = deque(unit for unit in self._postponed if unit.partition != partition)
        if self._probe is not None and self._probe.partition == partition:
            self._probe = None

    def replace(self, unit: Unit, outputs: tuple[Output, ...]) -> None:
        """Write these outputs, of a record that is set aside, in place of the rejected unit's."""
        assert self._units[0] is unit, "expected the rejected unit in front"
        self._units[0] = Unit(unit.partition, unit.finished, outputs, is_set_aside=True)

    def drop_first(self, unit: Unit) -> None:
        """Drop the rejected unit."""
        assert self._units[0] is unit, "expected the rejected unit in front"
        self._units.popleft()

    def postpone(self, unit: Unit) -> None:
        """Retry the rejected unit later, after other units."""
        assert self._units[0] is unit, "expected the rejected unit in front"
        self._postponed.append(self._units.popleft())
        self._probe = None
        self._probe_at = time.monotonic() + PROBE_POSTPONED_EVERY_S

    def _probe_postponed(self) -> None:
        if self._postponed and self._probe is None and time.monotonic() >= self._probe_at:
            self._probe = self._postponed.popleft()
            self._units.appendleft(self._probe)
            self._max_units = 1

    def _accepted(self, unit: Unit) -> None:
        if unit is self._probe:
            self._probe = None
            self._units.extendleft(reversed(self._postponed))
            self._postponed.clear()

    def is_due(self) -> bool:
        """Whether to commit now, by the time since the last commit and its outcome."""
        since = time.monotonic() - self._last_commit
        if self._aborts_in_a_row:
            backoff_s = COMMIT_EVERY_S * 2.0 ** min(self._aborts_in_a_row, 16)
            return since >= min(backoff_s, LONGEST_RETRY_S)
        if not all(item.has_committed for item in self._inputs):
            return True
        if self._units:
            return since >= self._commit_every_s or len(self._units) >= COMMIT_UNITS
        return since >= IDLE_COMMIT_EVERY_S or any(
            item.poison_search.is_active for item in self._inputs
        )

    def commit(self, group_metadata: object, closing: Collection[int] = ()) -> None:
        """Write one transaction: the outputs of finished units, and the committed offsets.

        The commits of `closing` partitions say that this process released them.

        Raises Aborted, after which the same units are retried, OutcomeUnknown, or OutputRejected
        for a unit that will always be rejected.
        """
        self._probe_postponed()
        units = [self._units[index] for index in range(min(len(self._units), self._max_units))]
        finished = self._finish(units)
        dirty = self._dirty(closing, {unit.partition for unit in units if not unit.finished})
        if units or dirty:
            outputs = [output for unit in units for output in unit.outputs]
            outputs.extend(self._stage.transaction_outputs(units))
            commits = [(item, commit) for item, _, commit in dirty]
            try:
                self._write(outputs, commits, group_metadata)
            except Aborted as error:
                self._aborted(units, finished, error)
                raise
            for _ in units:
                self._units.popleft()
            for unit in units:
                self._accepted(unit)
                if unit.committed is not None:
                    unit.committed()
            for output in outputs:
                if output.committed is not None:
                    output.committed()
            for item, notes, commit in dirty:
                item.committed_as = commit
                item.poison_search.committed(notes)
            self._measure(outputs)
        self._aborts_in_a_row = 0
        self._max_units = min(self._max_units * 2, COMMIT_UNITS)
        self._last_commit = time.monotonic()

    def _dirty(
        self, closing: Collection[int], fenced: Collection[int]
    ) -> list[tuple[Input, Notes, Commit]]:
        """The commits that have changed, and those of all `fenced` partitions.

        A commit makes Kafka check that this process still owns the partition.
        """
        found = []
        for item in self._inputs:
            notes = item.notes()
            if item.partition in closing:
                notes = Notes(redo_until=notes.redo_until, topic_id=notes.topic_id)
            commit = item.ledger.commit(notes)
            if commit != item.committed_as or item.partition in fenced:
                found.append((item, notes, commit))
        return found

    def _write(
        self,
        outputs: list[Output],
        commits: list[tuple[Input, Commit]],
        group_metadata: object,
    ) -> None:
        offsets = [
            TopicPartition(
                self._prefix + item.topic, item.partition, commit.offset, commit.metadata
            )
            for item, commit in commits
        ]
        started = time.monotonic()
        try:
            self._producer.commit(outputs, offsets, group_metadata)
        finally:
            self._observe_duration(started)

    def _aborted(
        self, units: list[Unit], finished: list[tuple[Input, int]], error: Aborted
    ) -> None:
        """Halve the next transaction until the rejected output is alone. Raises OutputRejected.

        The units of the aborted transaction are unfinished again.
        """
        for item in {id(item): item for item, _ in finished}.values():
            item.ledger.take_back(offset for other, offset in finished if other is item)
        if not error.over_a_record:
            self._aborts_in_a_row += 1
            return
        if len(units) == 1:
            raise OutputRejected(units[0], str(error)) from error
        self._max_units = max(1, len(units) // 2)

    def _finish(self, units: list[Unit]) -> list[tuple[Input, int]]:
        """Mark the offsets of the units finished; returns those that were in flight."""
        return [
            (item, offset)
            for unit in units
            for topic, offset in unit.finished
            if (item := self._inputs.get(topic, unit.partition)) is not None
            and item.ledger.finish(offset)
        ]

    def _observe_duration(self, started: float) -> None:
        self._last_commit = time.monotonic()
        duration = self._last_commit - started
        metrics.TRANSACTION_SECONDS.labels(self._stage.service).observe(duration)
        self._commit_every_s = min(
            max(COMMIT_EVERY_S, duration / SHARE_OF_TIME_IN_TRANSACTIONS), LONGEST_COMMIT_EVERY_S
        )

    def _measure(self, outputs: list[Output]) -> None:
        by_topic: dict[str, int] = {}
        for output in outputs:
            by_topic[output.topic] = by_topic.get(output.topic, 0) + 1
        for topic, count in by_topic.items():
            metrics.OUTPUTS.labels(self._stage.service, topic).inc(count)
