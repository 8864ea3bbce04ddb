"""The interface of a service to the loop: take records, return finished units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reviewmesh.kafka.record import Output, Record, Unit


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading of one input begins; topics are named without the prefix."""

    topic: str
    # Within the log when the stage gets it; before that None where nothing is committed.
    offset: int | None
    # Offsets at or after `offset` that are finished already.
    finished: frozenset[int] = frozenset()
    # The commit was not written by the mesh: an operator reset the group, or it is new.
    reset: bool = True
    # Up to this offset records are read again because of an operator's reset. Part of the commits
    # until the head has passed it.
    redo_until: int = 0
    # Kafka's id of the topic, shortened: the commit's until the log is queried, then the log's.
    topic_id: int = 0


class Ledgers(Protocol):
    """What a stage may read of the loop's ledgers."""

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        """Whether `offset` has not been delivered yet and is not known to be finished."""
        ...

    def head(self, topic: str, partition: int) -> int: ...

    def position(self, topic: str, partition: int) -> int: ...

    def topic_id(self, topic: str, partition: int) -> int:
        """Kafka's id of the topic that is read, shortened."""
        ...


class Stage(Protocol):
    """A service inside the consumer loop. Called from the polling thread unless noted."""

    service: str
    # The subscribed topic first; the same partition number of the others is read with it.
    topics: tuple[str, ...]
    # Other topics that `load` reads state from: if one is created again, the state is void.
    state_topics: tuple[str, ...]
    # Per partition: records in flight, and offsets between the head and the last delivered one.
    max_in_flight: int
    max_window: int

    def load(self, partition: int, starts: dict[str, Start]) -> Any:
        """Read the state of a partition; the result is passed to `open`.

        Called in a thread of its own. May replace the `starts` of its topics. Raises Unavailable to
        be called again.
        """
        ...

    def open(self, partition: int, ledgers: Ledgers, loaded: Any) -> None:
        """The partition is owned, its offsets are known and its state is loaded."""
        ...

    def close(self, partition: int) -> None:
        """The partition was released or will be reopened: drop all its state."""
        ...

    def receive(self, record: Record) -> None:
        """Take a record. Raises Unavailable to get it again later."""
        ...

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        """The outputs for a record that the stage cannot process: its dead letter, and what the
        rest
        of the mesh needs to go on without it."""
        ...

    def poll(self) -> Sequence[Unit]:
        """Run timers; returns the units finished since the last call."""
        ...

    def seal(self, units: Sequence[Unit]) -> Sequence[Output]:
        """Outputs about all units of one transaction, such as sums; asked before each attempt."""
        ...

    def blocks(self, topic: str, partition: int) -> bool:
        """Whether this input has to be paused now."""
        ...

    def waiting_for(self) -> str:
        """What outside keeps the stage from working; empty when nothing does.

        Called from any thread.
        """
        ...

    def waits_for(self, topic: str, partition: int) -> str:
        """What outside keeps the partition's oldest unfinished record from being finished.

        Empty when nothing does: missing progress is then an error.
        """
        ...

    def idle(self) -> bool:
        """Whether a graceful stop need not wait for records in flight."""
        ...

    def stop(self) -> None:
        """Close threads and connections."""
        ...
