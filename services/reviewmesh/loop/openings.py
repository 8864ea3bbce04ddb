"""Opens assigned partitions: fetches their committed offsets, then loads their state.

Committed offsets are requested between two polls with a short timeout, because the broker delays
the answer while the last owner's transaction is open. State is loaded in another thread, so that
polling continues meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import structlog
from confluent_kafka import KafkaException, TopicPartition

from reviewmesh.kafka.batches import Impassable, Prober, find_passage
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.loop.inputs import Input
from reviewmesh.loop.ledger import Commit, Notes, restore
from reviewmesh.loop.out_of_range import OutOfRangeOffsets
from reviewmesh.loop.poison import DEATHS_BEFORE_PROBE
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Stage, Start
from reviewmesh.settings import Settings

# Short, because the request blocks polling. Doubled while the coordinator is slow to answer.
RESOLVE_TIMEOUT_S = 0.1
LONGEST_RESOLVE_TIMEOUT_S = 0.8
RETRY_S = 1.0
LOADS_AT_ONCE = 3
# A load has deadlines of its own; one that exceeds this is abandoned and started again.
LOAD_DEADLINE_S = 90.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A partition whose offsets are known and whose state is loaded."""

    partition: int
    starts: dict[str, Start]
    notes: dict[str, Notes]
    # Whether this process wrote the last commit, so that no process died with the partition.
    own: bool
    loaded: Any
    # By topic: records that a probe process read, because the client would die of a batch.
    passages: dict[str, list[Record | Impassable]]


@dataclass(slots=True)
class Opening:
    """A partition that is being opened; the fields are those of `Opened`."""

    own: bool
    not_before: float = 0.0
    starts: dict[str, Start] = field(default_factory=dict)
    notes: dict[str, Notes] = field(default_factory=dict)
    passages: dict[str, list[Record | Impassable]] = field(default_factory=dict)
    loading: Loading | None = None


class Loading:
    """Runs `load` of a stage in a thread that can be abandoned."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        ends: OutOfRangeOffsets,
        partition: int,
        opening: Opening,
    ) -> None:
        self._outcome: SimpleQueue[Any] = SimpleQueue()
        self._began = time.monotonic()

        def load() -> None:
            try:
                log_ends = ends.correct(partition, opening.starts)
                loaded = stage.load(partition, opening.starts)
                _probe_if_needed(settings, partition, opening, log_ends)
                self._outcome.put(loaded)
            except Exception as error:  # noqa: BLE001 - raised again in the polling thread
                self._outcome.put(error)

        threading.Thread(target=load, name=f"load-{partition}", daemon=True).start()

    def result(self) -> Any:
        """Raises Empty while it runs, Unavailable after the deadline, and what `load` raised."""
        try:
            outcome = self._outcome.get_nowait()
        except Empty:
            if time.monotonic() - self._began > LOAD_DEADLINE_S:
                raise Unavailable(f"loading took over {LOAD_DEADLINE_S:g} s") from None
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _probe_if_needed(
    settings: Settings, partition: int, opening: Opening, log_ends: Mapping[str, int]
) -> None:
    """Read with a probe process if several processes died without progress. Raises Unavailable."""
    for topic, start in opening.starts.items():
        assert start.offset is not None, "expected an offset within the log"
        deaths = opening.notes[topic].deaths_with(opening.own)
        if deaths < DEATHS_BEFORE_PROBE or start.offset >= log_ends[topic]:
            continue
        with Prober(settings, topic, partition) as prober:
            opening.passages[topic] = find_passage(prober, start.offset)


class Openings:
    """Used by the polling thread."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        ends: OutOfRangeOffsets,
        readiness: Readiness,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._settings = settings
        self._stage = stage
        self._prefix = settings.prefix
        self._ends = ends
        self._readiness = readiness
        self._log = log
        self._openings: dict[int, Opening] = {}
        # This process's last commits of partitions that it had.
        self._last_commits: dict[MeshPartition, Commit] = {}
        self._timeout_s = RESOLVE_TIMEOUT_S

    def __len__(self) -> int:
        return len(self._openings)

    def begin(self, partitions: Sequence[int], own: bool = False) -> None:
        """Start to open partitions. `own`: this process had them until now, so no process died."""
        for partition in partitions:
            self._openings[partition] = Opening(own)
        if partitions:
            self._waits(f"committed offsets of partitions {list(partitions)}")

    def released(self, items: Sequence[Input]) -> None:
        """Remember the last commits of partitions that this process has read.

        A process that was cut off from the broker loses partitions without a closing commit. If it
        gets them back and no other process has committed since, no process has died with them.
        """
        for item in items:
            if item.committed_as is not None:
                self._last_commits[item.at] = item.committed_as

    def drop(self, partition: int) -> None:
        """Stop opening a partition, if it is being opened."""
        self._openings.pop(partition, None)
        if not self._openings:
            self._readiness.clear("offsets")

    def advance(self, consumer: Any) -> list[Opened]:
        """The partitions that are open now. Makes at most one request that times out."""
        opened = []
        for partition, opening in list(self._openings.items()):
            if opening.loading is not None:
                if (ready := self._loaded(partition, opening)) is not None:
                    opened.append(ready)
            elif self._can_load() and time.monotonic() >= opening.not_before:
                if not self._resolve(consumer, partition, opening):
                    break
                opening.loading = Loading(
                    settings=self._settings,
                    stage=self._stage,
                    ends=self._ends,
                    partition=partition,
                    opening=opening,
                )
        if not self._openings:
            self._readiness.clear("offsets")
        return opened

    def _can_load(self) -> bool:
        loading = sum(opening.loading is not None for opening in self._openings.values())
        return loading < LOADS_AT_ONCE

    def _resolve(self, consumer: Any, partition: int, opening: Opening) -> bool:
        wanted = [TopicPartition(self._prefix + topic, partition) for topic in self._stage.topics]
        try:
            committed = consumer.committed(wanted, timeout=self._timeout_s)
            for item in committed:
                if item.error:
                    raise KafkaException(item.error)
        except KafkaException as error:
            # The previous owner's transaction is open, or the broker does not answer. Try the other
            # partitions first the next time.
            self._waits(f"committed offsets: {error.args[0].str()}")
            self._timeout_s = min(self._timeout_s * 2, LONGEST_RESOLVE_TIMEOUT_S)
            self._openings[partition] = self._openings.pop(partition)
            return False
        self._timeout_s = RESOLVE_TIMEOUT_S
        for topic, item in zip(self._stage.topics, committed, strict=True):
            self._restore(opening, topic, item)
        opening.own = opening.own or self._is_own_last_commit(partition, committed)
        return True

    def _is_own_last_commit(self, partition: int, committed: Sequence[TopicPartition]) -> bool:
        return all(
            self._last_commits.get(MeshPartition(topic, partition))
            == Commit(item.offset, item.metadata or "")
            for topic, item in zip(self._stage.topics, committed, strict=True)
        )

    def _restore(self, opening: Opening, topic: str, item: TopicPartition) -> None:
        if item.offset < 0:
            opening.starts[topic], opening.notes[topic] = Start(topic, None), Notes()
            return
        restored = restore(item.offset, item.metadata)
        if restored.problem:
            self._log.warning(
                "commit metadata that the mesh did not write is ignored: records beyond the "
                "committed offset are processed again",
                topic=item.topic,
                partition=item.partition,
                offset=item.offset,
                reason=restored.problem,
            )
        opening.notes[topic] = restored.notes
        opening.starts[topic] = Start(
            topic=topic,
            offset=item.offset,
            finished=restored.finished,
            reset=not restored.marked,
            redo_until=restored.notes.redo_until,
            topic_id=restored.notes.topic_id,
        )

    def _loaded(self, partition: int, opening: Opening) -> Opened | None:
        assert opening.loading is not None
        try:
            loaded = opening.loading.result()
        except Empty:
            return None
        except Unavailable as error:
            again_at = time.monotonic() + RETRY_S
            self._openings[partition] = Opening(opening.own, again_at)
            self._waits(str(error))
            self._log.warning(
                "cannot open a partition yet, retrying", partition=partition, reason=str(error)
            )
            return None
        del self._openings[partition]
        return Opened(
            partition=partition,
            starts=opening.starts,
            notes=opening.notes,
            own=opening.own,
            loaded=loaded,
            passages=opening.passages,
        )

    def _waits(self, reason: str) -> None:
        self._readiness.set_waiting("offsets", reason)
