"""The interface that a service implements for the loop: take records, return finished units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reviewmesh.kafka.record import Output, Record, Unit


@dataclass(frozen=True, slots=True)
class Start:
    """The offset at which reading of an input begins. Topic names are without the prefix."""

    topic: str
    # Within the log once the stage gets it. Before, the committed offset, or None without a commit.
    offset: int | None
    # Offsets at or after `offset` that are finished already.
    finished: frozenset[int] = frozenset()
    # The mesh did not write the commit: an operator reset the group, or the group is new.
    reset: bool = True
    # Records below this offset are read again because an operator reset the group. Kept in the
    # commits until the head has passed it.
    redo_until: int = 0
    # Kafka's id of the topic, shortened. From the commit until the log is queried, then from there.
    topic_id: int = 0


class Ledgers(Protocol):
    """The part of the loop's ledgers that a stage may read."""

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        """Whether `offset` has not been delivered yet and is not known to be finished."""
        ...

    def head(self, topic: str, partition: int) -> int:
        """The lowest unfinished offset."""
        ...

    def position(self, topic: str, partition: int) -> int:
        """The offset after the last delivered one."""
        ...

    def topic_id(self, topic: str, partition: int) -> int:
        """Kafka's id of the topic that is read, shortened."""
        ...


class Stage(Protocol):
    """A service inside the consumer loop. Called from the polling thread unless noted."""

    service: str
    # The subscribed topic first; the same partition number of the others is read with it.
    topics: tuple[str, ...]
    # Other topics that `load` reads state from. If one is created again, all partitions are
    # reloaded.
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
        """Begin to work on the partition: its offsets are known and its state is loaded."""
        ...

    def close(self, partition: int) -> None:
        """Drop all state of the partition: it was released or will be reopened."""
        ...

    def receive(self, record: Record) -> None:
        """Take a record. Raises Unavailable to get the same record again later."""
        ...

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        """The outputs for a record that the stage cannot process.

        These are its dead letter, and records that other stages would wait for.
        """
        ...

    def poll(self) -> Sequence[Unit]:
        """Run timers; returns the units finished since the last call."""
        ...

    def transaction_outputs(self, units: Sequence[Unit]) -> Sequence[Output]:
        """Further outputs of the transaction that commits these units, such as sums.

        Called before every attempt of a transaction.
        """
        ...

    def blocks(self, topic: str, partition: int) -> bool:
        """Whether this input has to be paused now."""
        ...

    def waiting_for(self) -> str:
        """The outside cause that keeps the stage from working; empty without one.

        Called from any thread.
        """
        ...

    def waits_for(self, topic: str, partition: int) -> str:
        """The outside cause that keeps the partition's oldest unfinished record unfinished.

        Empty without one: missing progress is then an error.
        """
        ...

    def idle(self) -> bool:
        """Whether a graceful stop need not wait for records in flight."""
        ...

    def stop(self) -> None:
        """Close threads and connections."""
        ...
