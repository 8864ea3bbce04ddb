"""What intake has judged of the raw records that an operator's reset makes come again.

The outcomes tell: accepted reviews and dead letters carry the coordinates of their raw record, and
a forwarded copy those of the record that it is of. What left no outcome was dropped as a duplicate,
or never judged; the content of the review before it tells which. So a reset of intake repeats
nothing as long as the outcomes are kept.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from reviewmesh.runtime.clock import bounded_ms
from reviewmesh.runtime.codec import Codec, DecodeError
from reviewmesh.runtime.deadletter import DEAD_LETTER
from reviewmesh.runtime.readback import ReadBack
from reviewmesh.runtime.reader import PartitionReader
from reviewmesh.runtime.record import FORWARDED_FROM, Record
from reviewmesh.runtime.stage import Start

RAW = "reviews.raw"
ACCEPTED = "reviews.accepted"
CAME_FROM = re.compile(rb"reviews\.raw/([0-9]{1,9})/([0-9]{1,18})")
OFFSETS_PER_CHUNK = 1 << 16
# 128 MB for each kind of outcome: four bytes an offset.
CHUNKS_AT_MOST = 512
LATEST_CONTENTS = 20_000


class Offsets:
    """A number of 32 bits that is not 0 for offsets of any partitions, in chunks of neighbours.

    Far beyond what is plausible the oldest chunks go.
    """

    def __init__(self, chunks_at_most: int) -> None:
        self._chunks_at_most = chunks_at_most
        self._chunks: OrderedDict[tuple[int, int], array[int]] = OrderedDict()

    def set(self, partition: int, offset: int, number: int) -> None:
        if offset < 0:
            return
        chunk, within = divmod(offset, OFFSETS_PER_CHUNK)
        numbers = self._chunks.get((partition, chunk))
        if numbers is None:
            numbers = array("I", [0]) * OFFSETS_PER_CHUNK
            self._chunks[partition, chunk] = numbers
            if len(self._chunks) > self._chunks_at_most:
                self._chunks.popitem(last=False)
        numbers[within] = number

    def get(self, partition: int, offset: int) -> int:
        chunk, within = divmod(offset, OFFSETS_PER_CHUNK)
        numbers = self._chunks.get((partition, chunk))
        return 0 if numbers is None else numbers[within]


class Judged:
    """Of one partition of raw, for the offsets before `until`.

    Outcomes are kept with the time of their raw record: the same offset of a topic that was deleted
    and made anew is another record.
    """

    def __init__(self, partition: int, until: int) -> None:
        self._partition = partition
        self.until = until
        self._accepted = Offsets(CHUNKS_AT_MOST)
        self._refused = Offsets(CHUNKS_AT_MOST)
        # By what the copies say, with the sum of their bytes: any producer can write any header.
        self._forwarded = Offsets(CHUNKS_AT_MOST)
        self._latest: OrderedDict[str, str] = OrderedDict()

    def add_accepted(self, accepted: Mapping[str, Any]) -> None:
        """A record of the same partition of `reviews.accepted`."""
        if accepted["source_topic"] == RAW and accepted["source_offset"] is not None:
            place = accepted["source_partition"], accepted["source_offset"]
            self._accepted.set(*place, stamp(accepted["source_timestamp"]))

    def add_dead_letter(self, letter: Mapping[str, Any]) -> None:
        if letter["topic"] == RAW and letter["stage"] == "intake":
            self._refused.set(letter["partition"], letter["offset"], stamp(letter["read_at"]))

    def add_forwarded(self, record: Record) -> None:
        """A record of another partition of raw, which may be the copy of one of this."""
        partition, offset = claimed(record)
        if partition == self._partition:
            self._forwarded.set(partition, offset, checksum(record))

    def covers(self, record: Record) -> bool:
        return record.offset < self.until

    def was_accepted(self, record: Record, origin_ms: int) -> bool:
        """Under its own coordinates or those that it claims, which may have been believed then.

        `origin_ms` is the time that an outcome of it would carry.
        """
        return any(
            self._accepted.get(*place) == stamp(origin_ms)
            for place in ((record.partition, record.offset), claimed(record))
        )

    def was_settled(self, record: Record) -> bool:
        """Whether it was refused, or forwarded to its own partition."""
        at = record.partition, record.offset
        was_refused = self._refused.get(*at) == stamp(bounded_ms(record.timestamp_ms))
        return was_refused or self._forwarded.get(*at) == checksum(record)

    def passed(self, review_id: str, content_hash: str) -> None:
        """The reading came past a review that was accepted."""
        self._latest.pop(review_id, None)
        self._latest[review_id] = content_hash
        if len(self._latest) > LATEST_CONTENTS:
            self._latest.popitem(last=False)

    def was_dropped(self, review_id: str, content_hash: str) -> bool:
        """Whether it left no outcome since it was a duplicate of the review before it."""
        return self._latest.get(review_id) == content_hash


def claimed(record: Record) -> tuple[int, int]:
    """Partition and offset that a record says to be a copy of; negative where it says nothing."""
    match = CAME_FROM.fullmatch(record.header(FORWARDED_FROM) or b"")
    return (int(match[1]), int(match[2])) if match else (-1, -1)


def stamp(milliseconds: int | None) -> int:
    """Never 0, which stands for none."""
    return (milliseconds or 0) & 0xFFFFFFFF or 1


def checksum(record: Record) -> int:
    """Never 0, which stands for none."""
    return zlib.crc32(record.value or b"") or 1


class Resets:
    """Reads back what was judged. Used by the threads that load partitions."""

    def __init__(
        self,
        reader: PartitionReader,
        accepted_codec: Codec,
        dead_letters_codec: Codec,
        partitions: int,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._reader = reader
        self._accepted_codec = accepted_codec
        self._dead_letters_codec = dead_letters_codec
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
        judged = Judged(partition, until)
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
                    judged.add_accepted(self._accepted_codec.decode_ours(record.value or b""))
                else:
                    judged.add_dead_letter(
                        self._dead_letters_codec.decode_ours(record.value or b"")
                    )
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
