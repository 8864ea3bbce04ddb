"""Reads long ranges after an operator's reset, a few seconds per attempt."""

from __future__ import annotations

import time
from collections.abc import Callable

from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Record, Unavailable

# Of one attempt; the next attempt continues there.
READ_FOR_S = 15.0


class ReadBack:
    """Passes every committed record of some partitions to `take`, from given offsets to the ends.

    Reading a week of records takes longer than one attempt to open a partition may: `go_on` raises
    Unavailable while records remain, and is called again.
    """

    def __init__(
        self,
        reader: PartitionReader,
        positions: dict[tuple[str, int], int],
        take: Callable[[Record], None],
    ) -> None:
        self._reader = reader
        self._positions = positions
        self._take = take

    def go_on(self) -> None:
        deadline = time.monotonic() + READ_FOR_S
        for (topic, partition), position in list(self._positions.items()):
            for record in self._reader.read_from(topic, partition, position):
                self._take(record)
                self._positions[topic, partition] = record.offset + 1
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"after a reset, reading back {topic}/{partition}: at offset "
                        f"{record.offset + 1}"
                    )
