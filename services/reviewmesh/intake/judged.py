"""What intake has judged of the raw records that an operator's reset makes come again.

The outcomes tell: accepted reviews and dead letters carry the coordinates of their raw record, and
a forwarded copy those of the record that it is of. What left no outcome was dropped as a duplicate,
or never judged; the content of the review before it tells which. So a reset of intake repeats
nothing as long as the outcomes are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from reviewmesh.runtime.codec import Codec, DecodeError
from reviewmesh.runtime.deadletter import DEAD_LETTER
from reviewmesh.runtime.readback import ReadBack
from reviewmesh.runtime.reader import PartitionReader
from reviewmesh.runtime.record import FORWARDED_FROM, Record
from reviewmesh.runtime.stage import Start

RAW = "reviews.raw"
ACCEPTED = "reviews.accepted"
OFFSETS_PER_CHUNK = 1 << 16
# 32 MB of offsets in a set at most: two hundred and sixty million of them where they are dense.
CHUNKS_AT_MOST = 4_096
LATEST_CONTENTS = 20_000


class OffsetSet:
    """Offsets of any partitions, a bit each; far beyond what is plausible the oldest go."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[tuple[int, int], bytearray] = OrderedDict()

    def add(self, partition: int, offset: int) -> None:
        if offset < 0:
            return
        number, within = divmod(offset, OFFSETS_PER_CHUNK)
        chunk = self._chunks.get((partition, number))
        if chunk is None:
            chunk = self._chunks[partition, number] = bytearray(OFFSETS_PER_CHUNK // 8)
            if len(self._chunks) > CHUNKS_AT_MOST:
                self._chunks.popitem(last=False)
        chunk[within >> 3] |= 1 << (within & 7)

    def has(self, partition: int, offset: int) -> bool:
        number, within = divmod(offset, OFFSETS_PER_CHUNK)
        chunk = self._chunks.get((partition, number))
        return chunk is not None and bool(chunk[within >> 3] >> (within & 7) & 1)


class Judged:
    """Of one partition of raw, for the offsets before `until`."""

    def __init__(self, raw: str, partition: int, until: int) -> None:
        """`raw` is the topic's full name, as outcomes and forwarded copies carry it or not."""
        self._raw_names = (RAW, raw)
        self._partition = partition
        self.until = until
        self._accepted = OffsetSet()
        self._refused = OffsetSet()
        self._forwarded = OffsetSet()
        self._latest: OrderedDict[str, str] = OrderedDict()

    def add_accepted(self, accepted: Mapping[str, Any]) -> None:
        """A record of the same partition of `reviews.accepted`."""
        if accepted["source_topic"] in self._raw_names and accepted["source_offset"] is not None:
            self._accepted.add(accepted["source_partition"], accepted["source_offset"])

    def add_dead_letter(self, letter: Mapping[str, Any]) -> None:
        if letter["topic"] in self._raw_names and letter["stage"] == "intake":
            self._refused.add(letter["partition"], letter["offset"])

    def add_forwarded(self, record: Record) -> None:
        """A record of another partition of raw, which may be the copy of one of this."""
        came_from = (record.header(FORWARDED_FROM) or b"").decode("ascii", "replace").split("/")
        if len(came_from) == 3 and came_from[0] in self._raw_names:
            partition, offset = came_from[1:]
            # More digits than any offset has: `int` would take long, or refuse.
            if partition == str(self._partition) and offset.isdecimal() and len(offset) < 19:
                self._forwarded.add(self._partition, int(offset))

    def covers(self, record: Record) -> bool:
        return record.offset < self.until

    def was_accepted(self, partition: int, offset: int) -> bool:
        """By the coordinates of the producer's own record."""
        return self._accepted.has(partition, offset)

    def was_settled(self, record: Record) -> bool:
        """Whether it was refused, or forwarded to its own partition."""
        at = record.partition, record.offset
        return self._refused.has(*at) or self._forwarded.has(*at)

    def passed(self, review_id: str, content_hash: str) -> None:
        """The reading came past a review that was accepted."""
        self._latest.pop(review_id, None)
        self._latest[review_id] = content_hash
        if len(self._latest) > LATEST_CONTENTS:
            self._latest.popitem(last=False)

    def was_dropped(self, review_id: str, content_hash: str) -> bool:
        """Whether it left no outcome since it was a duplicate of the review before it."""
        return self._latest.get(review_id) == content_hash


class Resets:
    """Reads back what was judged. Used by the threads that load partitions."""

    def __init__(
        self,
        reader: PartitionReader,
        accepted_codec: Codec,
        dead_letters_codec: Codec,
        prefix: str,
        partitions: int,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._reader = reader
        self._accepted_codec = accepted_codec
        self._dead_letters_codec = dead_letters_codec
        self._raw = prefix + RAW
        self._partitions = partitions
        self._log = log
        self._readings: dict[int, tuple[Judged, ReadBack]] = {}

    def mend(self, partition: int, starts: dict[str, Start]) -> Judged | None:
        """What was judged of the records that come again; None where none does.

        Raises Unavailable to be asked again, also while there is more to read back.
        """
        start = starts[RAW]
        first = start.offset or 0
        if not start.reset and start.redo_until <= first:
            return None
        until = self._reader.bounds(RAW, partition)[1] if start.reset else start.redo_until
        if until <= first:
            return None
        judged, readback = self._readings.get(partition) or self._begin(partition, first, until)
        self._readings[partition] = judged, readback
        readback.go_on()
        del self._readings[partition]
        starts[RAW] = replace(start, redo_until=max(until, judged.until))
        judged.until = max(until, judged.until)
        return judged

    def _begin(self, partition: int, first: int, until: int) -> tuple[Judged, ReadBack]:
        judged = Judged(self._raw, partition, until)
        home = partition % self._partitions
        positions = {(ACCEPTED, home): 0, (DEAD_LETTER, home): 0}
        # A copy can only be behind what it is a copy of, but producers make up the time of both.
        positions |= {(RAW, other): 0 for other in range(self._partitions) if other != partition}

        def take(record: Record) -> None:
            if record.topic == RAW:
                judged.add_forwarded(record)
                return
            try:
                if record.topic == ACCEPTED:
                    judged.add_accepted(self._accepted_codec.decode(record.value or b""))
                else:
                    judged.add_dead_letter(self._dead_letters_codec.decode(record.value or b""))
            except DecodeError:
                # What others wrote there is no outcome of intake's.
                return

        self._log.warning(
            "the group was reset: raw records come again, and only those are judged that have no "
            "outcome yet",
            partition=partition,
            first=first,
            until=until,
        )
        return judged, ReadBack(self._reader, positions, take)
