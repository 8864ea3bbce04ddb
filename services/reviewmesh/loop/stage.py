"""What the loop asks of a service: take records, hand back finished units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reviewmesh.kafka.record import Output, Record, Unit


@dataclass(frozen=True, slots=True)
class Start:
    """Where one input of a partition begins to be read; names are without the prefix."""

    topic: str
    # Within the log when a stage sees it; None until then where nothing is committed.
    offset: int | None
    # Offsets at or after `offset` that are finished already.
    finished: frozenset[int] = frozenset()
    # The commit does not carry the mesh's mark: an operator reset the group, or it is new.
    reset: bool = True
    # Up to this offset an operator's reset makes records come again; it travels with the commits
    # until the head has passed it.
    redo_until: int = 0
    # Kafka's id of the topic, in short: the commit's until the log is looked at, then the log's.
    topic_id: int = 0


class Ledgers(Protocol):
    """The loop's ledgers, as far as a stage may look into them."""

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        """Whether `offset` has not been delivered yet and is not known to be finished."""
        ...

    def head(self, topic: str, partition: int) -> int: ...

    def position(self, topic: str, partition: int) -> int: ...

    def topic_id(self, topic: str, partition: int) -> int:
        """Kafka's id of the topic that is read, in short."""
        ...


class Stage(Protocol):
    """A service inside the consumer loop. Everything is called from the polling thread."""

    service: str
    # The subscribed topic first; the same partition number of the others comes along with it.
    topics: tuple[str, ...]
    # Others that `load` takes a partition's state from: made anew, they make it void.
    state_topics: tuple[str, ...]
    # Per partition: records in flight, and offsets between the head and the last delivered one.
    max_in_flight: int
    max_window: int

    def load(self, partition: int, starts: dict[str, Start]) -> Any:
        """Read what the partition's state is made anew from; its result goes to `open`.

        Called in a thread of its own, so that reading holds nothing up. It may replace the
        `starts` of its topics. Raises Unavailable to be asked again.
        """
        ...

    def open(self, partition: int, ledgers: Ledgers, loaded: Any) -> None:
        """Owned, its offsets are known and its state is loaded."""
        ...

    def close(self, partition: int) -> None:
        """The partition is gone, or about to be read again: forget all of it."""
        ...

    def receive(self, record: Record) -> None:
        """Take a record. Raises Unavailable when it cannot be judged now; it comes again."""
        ...

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        """The outputs that end a record which the stage cannot take: its dead letter, and
        whatever else lets the rest of the mesh go on without it."""
        ...

    def poll(self) -> Sequence[Unit]:
        """Timers and completions; returns what is finished since the last call."""
        ...

    def blocks(self, topic: str, partition: int) -> bool:
        """Whether this input is to be paused now."""
        ...

    def waiting_for(self) -> str:
        """What outside keeps the stage from working, in words; empty when nothing does.

        The one thing that is asked from other threads than the polling one.
        """
        ...

    def waits_for(self, partition: int) -> str:
        """What outside keeps the partition's oldest unfinished record from being finished, in
        words; empty when nothing does, so that standing still is an error."""
        ...

    def idle(self) -> bool:
        """Whether nothing is in flight that a graceful stop should wait for."""
        ...

    def stop(self) -> None:
        """Let go of threads and connections."""
        ...
