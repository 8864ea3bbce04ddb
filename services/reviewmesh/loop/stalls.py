"""Finds partitions that make no progress although they could, so that the loop reopens them.

Records that wait for an outside cause (missing workers, a deadline that is not due, an open
transaction of another producer) are reported, and their partitions are not reopened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from reviewmesh import metrics
from reviewmesh.kafka.logwatch import Log
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.out_of_range import OutOfRangeOffsets
from reviewmesh.loop.progress import Progress
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Stage

LOOK_EVERY_S = 1.0
HELD_UP_AFTER_S = 10.0


class StandsStill(RuntimeError):
    """A reopened partition makes no progress either: restart the process."""


class StallDetector:
    """Used by the polling thread."""

    def __init__(
        self,
        stage: Stage,
        inputs: Inputs,
        ends: OutOfRangeOffsets,
        readiness: Readiness,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._stage = stage
        self._inputs = inputs
        self._ends = ends
        self._readiness = readiness
        self._log = log
        self._look_at = 0.0
        self._progress: dict[MeshPartition, Progress] = {}
        # The last log that was checked, and the position at that time, in monotonic seconds.
        self._positions: dict[MeshPartition, tuple[Log, int, float]] = {}
        self._skipped_until: dict[MeshPartition, int] = {}
        # The heads of partitions when they were reopened: they have recovered once these move.
        self._reopened: dict[int, dict[str, int]] = {}

    def restart_timers(self) -> None:
        """Restart all timers: no progress is possible now, for a reason that is reported
        elsewhere."""
        self._progress.clear()

    def released(self, partitions: Iterable[int]) -> None:
        """Forget these partitions: their new owner watches their progress."""
        for partition in partitions:
            self._reopened.pop(partition, None)

    def check(
        self, logs: Mapping[MeshPartition, Log], is_unsent: Callable[[int], bool]
    ) -> set[int]:
        """The partitions to reopen.

        `is_unsent`: whether finished units of a partition wait to be committed. Raises StandsStill.
        """
        now = time.monotonic()
        if now < self._look_at:
            return set()
        self._look_at = now + LOOK_EVERY_S
        inputs = list(self._inputs)
        self._forget_unassigned({item.at for item in inputs})
        cut_off = {item.partition for item in inputs if self._is_truncated(item, logs)}
        still = self._stalled_partitions(inputs, logs, is_unsent, now)
        self._report_open_transactions(inputs, logs, now)
        self._count_recovered(inputs)
        for partition, reason in still.items():
            self._note_stall(partition, reason, inputs)
        metrics.STALLED.labels(self._stage.service).set(len(self._reopened))
        for at in [at for at in self._progress if at[1] in still]:
            del self._progress[at]
        return cut_off | still.keys()

    def _forget_unassigned(self, present: set[MeshPartition]) -> None:
        for known in (
            self._progress,
            self._positions,
            self._skipped_until,
        ):
            for at in known.keys() - present:
                del known[at]

    # -- stalls ------------------------------------------------------------------------------

    def _stalled_partitions(
        self,
        inputs: list[Input],
        logs: Mapping[MeshPartition, Log],
        is_unsent: Callable[[int], bool],
        now: float,
    ) -> dict[int, str]:
        still: dict[int, str] = {}
        trying = any(item.poison_search.is_active for item in inputs)
        for item in inputs:
            at = item.at
            ledger = item.ledger
            reason = self._progress.setdefault(at, Progress()).check(
                position=ledger.position,
                head=ledger.head,
                in_flight=0 if is_unsent(item.partition) else ledger.in_flight,
                unread=0 if trying else self._readable(item, logs.get(at)),
                waits_for=self._stage.waits_for(item.topic, item.partition),
                now=now,
            )
            if reason:
                still[item.partition] = f"{item.topic}/{item.partition}: {reason}"
        return still

    def _readable(self, item: Input, log: Log | None) -> int:
        """The number of offsets that the stage could take now, transaction markers included."""
        position = item.ledger.position
        if log is None or self._readiness.is_waiting_for("records"):
            return 0
        if not item.ledger.has_slack() or self._stage.blocks(item.topic, item.partition):
            return 0
        return max(0, log.stable - position)

    def _note_stall(self, partition: int, reason: str, inputs: list[Input]) -> None:
        if partition in self._reopened:
            raise StandsStill(f"partition {partition} was reopened and stands still: {reason}")
        self._log.error("stands still: reopening the partition", reason=reason)
        self._readiness.set_waiting("progress", reason)
        metrics.REOPENED.labels(self._stage.service).inc()
        self._reopened[partition] = {
            item.topic: item.ledger.head for item in inputs if item.partition == partition
        }

    def _count_recovered(self, inputs: list[Input]) -> None:
        """A reopened partition has recovered once it has finished a record."""
        for item in inputs:
            heads = self._reopened.get(item.partition)
            if heads is not None and item.ledger.head > heads.get(item.topic, 0):
                self._log.info(
                    "the reopened partition makes progress again", partition=item.partition
                )
                del self._reopened[item.partition]
        if not self._reopened:
            self._readiness.clear("progress")

    # -- logs that moved ---------------------------------------------------------------------

    def _is_truncated(self, item: Input, logs: Mapping[MeshPartition, Log]) -> bool:
        """Whether the log ends before the position, as after an unclean leader election.

        Also counts offsets that were deleted before they were read.
        """
        at = item.at
        log = logs.get(at)
        if log is None:
            return False
        position = item.ledger.position
        last, reached, noted_at = self._positions.get(at, (None, 0, 0.0))
        if last is not log:
            self._positions[at] = (log, position, time.monotonic())
            # An older answer says nothing: the log may have grown since.
            if log.end < reached and log.asked_at > noted_at:
                self._log.warning(
                    "the log ends before the offset that was read: reopening the partition",
                    topic=item.topic,
                    partition=item.partition,
                    read=reached,
                    end=log.end,
                )
                del self._positions[at]
                return True
            # The client skips deleted offsets by itself, often before this log was queried.
            for first, following in item.gaps:
                self._count_skipped(at, first, min(following, log.start))
            item.gaps.clear()
            self._count_skipped(at, item.ledger.position, log.start)
        return False

    def _count_skipped(self, at: MeshPartition, first: int, low: int) -> None:
        first = max(first, self._skipped_until.get(at, 0))
        if low > first:
            self._ends.skipped(*at, first, low)
            self._skipped_until[at] = low

    def _report_open_transactions(
        self, inputs: list[Input], logs: Mapping[MeshPartition, Log], now: float
    ) -> None:
        """Report transactions that other producers left open in /readyz.

        The mesh's own are open for milliseconds.
        """
        held = [
            f"{item.topic}/{item.partition} at offset {log.stable}"
            for item in inputs
            if (log := logs.get(item.at)) is not None
            and log.held_since is not None
            and now - log.held_since > HELD_UP_AFTER_S
            and item.ledger.position >= log.stable
        ]
        self._readiness.held_up = (
            f"a transaction that a producer left open holds up {', '.join(held)}" if held else ""
        )
