"""What the loop asks of a service: take records, hand back finished units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reviewmesh.runtime.record import Record, Unit


class Ledgers(Protocol):
    """The loop's ledgers, as far as a stage may look into them."""

    def is_unfinished(self, topic: str, partition: int, offset: int) -> bool: ...

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        """Whether `offset` has not been delivered yet and is not known to be finished."""
        ...

    def head(self, topic: str, partition: int) -> int: ...

    def position(self, topic: str, partition: int) -> int: ...


class Stage(Protocol):
    """A service inside the consumer loop. Everything is called from the polling thread."""

    service: str
    # The subscribed topic first; the same partition number of the others comes along with it.
    topics: tuple[str, ...]
    # Per partition: records in flight, and offsets between the head and the last delivered one.
    max_in_flight: int
    max_window: int

    def open(self, partition: int, ledgers: Ledgers) -> None:
        """Owned, and its offsets are known. Raises Unavailable to be asked again."""
        ...

    def close(self, partition: int) -> None:
        """The partition is gone, or about to be read again: forget all of it."""
        ...

    def receive(self, record: Record) -> None:
        """Take a record. Raises Unavailable when it cannot be judged now; it comes again."""
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

    def idle(self) -> bool:
        """Whether nothing is in flight that a graceful stop should wait for."""
        ...

    def stop(self) -> None:
        """Let go of threads and connections."""
        ...
