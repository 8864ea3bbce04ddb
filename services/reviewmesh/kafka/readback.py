"""Reads long ranges of partitions again, a few seconds per attempt.

Stages do so after a reset of their group. The joiner also does so for a campaign, to find what was
published since the campaign chose its reviews.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Record, Unavailable

# The longest attempt; the next one continues where it stopped.
READ_FOR_S = 15.0


class ReadBack:
    """Passes every committed record of some partitions to `take`, from given offsets to the ends.

    A week of records takes longer to read than the caller may wait: `go_on` raises Unavailable
    while records remain, and the caller calls it again.
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
                        f"reading {topic}/{partition} again: at offset {record.offset + 1}"
                    )
