"""The partitions that a process reads, each with its ledger and its queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from reviewmesh.kafka.batches import Impassable
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record
from reviewmesh.loop.ledger import Commit, CompletionLedger, Notes
from reviewmesh.loop.poison import PoisonSearch

GAPS_KEPT = 1_000


@dataclass(slots=True)
class Input:
    """One partition of one topic.

    `queued` holds at most the records of one poll, because an input with queued records is paused,
    and the records that `find_passage` read when the partition was opened.
    """

    topic: str
    partition: int
    ledger: CompletionLedger
    poison_search: PoisonSearch
    redo_until: int = 0
    topic_id: int = 0
    queued: deque[Record | Impassable] = field(default_factory=deque)
    end: int = 0
    # Offsets that were not delivered, as (first, next): transaction markers, or deleted unread.
    gaps: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=GAPS_KEPT))
    paused: bool = False
    # The client rejects a batch, and the end of the batch is not known yet.
    batch_rejected: bool = False
    committed_as: Commit | None = None

    @property
    def at(self) -> MeshPartition:
        return MeshPartition(self.topic, self.partition)

    @property
    def has_committed(self) -> bool:
        """Whether this process has committed to the partition. It takes no record before.

        The commit tells the next owner whether this process died.
        """
        return self.committed_as is not None

    @property
    def next_offset(self) -> int:
        """The offset after the last one received."""
        if not self.queued:
            return self.ledger.position
        last = self.queued[-1]
        return last.next if isinstance(last, Impassable) else last.offset + 1

    def notes(self) -> Notes:
        head = self.ledger.head
        notes = self.poison_search.notes(head, self.redo_until if head < self.redo_until else 0)
        return replace(notes, topic_id=self.topic_id)


class Inputs:
    """All inputs of a process, by topic and partition."""

    def __init__(self) -> None:
        self._inputs: dict[tuple[str, int], Input] = {}

    def __iter__(self) -> Iterator[Input]:
        return iter(self._inputs.values())

    def get(self, topic: str, partition: int) -> Input | None:
        return self._inputs.get((topic, partition))

    def add(self, inputs: list[Input]) -> None:
        for item in inputs:
            self._inputs[item.topic, item.partition] = item

    def remove(self, partition: int) -> list[Input]:
        removed = [item for item in self if item.partition == partition]
        for item in removed:
            del self._inputs[item.topic, item.partition]
        return removed

    def in_flight(self, topic: str | None = None) -> int:
        return sum(item.ledger.in_flight for item in self if topic in (None, item.topic))

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        return self._inputs[topic, partition].ledger.is_new(offset)

    def head(self, topic: str, partition: int) -> int:
        return self._inputs[topic, partition].ledger.head

    def position(self, topic: str, partition: int) -> int:
        return self._inputs[topic, partition].ledger.position

    def topic_id(self, topic: str, partition: int) -> int:
        return self._inputs[topic, partition].topic_id
