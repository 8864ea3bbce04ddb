"""Reads back long stretches after an operator's reset, a few seconds an attempt."""

from __future__ import annotations

import time
from collections.abc import Callable

from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Record, Unavailable

# Of one attempt; the next one goes on where it ended.
READ_FOR_S = 15.0


class ReadBack:
    """Gives every committed record of some partitions, from given offsets to their ends.

    A week of records takes longer than a partition may take to open in one go: `go_on` raises
    Unavailable while there is more, and is called again.
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
