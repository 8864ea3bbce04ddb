"""Which raw records intake has processed already, after an operator's reset.

This is read from the outcomes. Accepted reviews and dead letters carry the coordinates of their raw
record. A forwarded copy carries those of its original, and so does the copy's outcome, since the
copy may be deleted first. A record without an outcome was dropped as a duplicate or never
processed: the content accepted before it tells which. So a reset of intake repeats nothing as long
as the outcomes are retained.
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

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.clock import bounded_ms
from reviewmesh.kafka.readback import ReadBack
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import FORWARDED_FROM, Record
from reviewmesh.loop.stage import Start
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW

CAME_FROM = re.compile(rb"reviews\.raw/([0-9]{1,9})/([0-9]{1,18})")
OFFSETS_PER_CHUNK = 1 << 16
# 128 MB for each kind of outcome: four bytes an offset.
CHUNKS_AT_MOST = 512
LATEST_CONTENTS = 20_000


class Offsets:
    """Maps (partition, offset) to a 32-bit number other than 0, stored in chunks of neighbours.

    Beyond `chunks_at_most` the oldest chunks are dropped.
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
    """The outcomes of one raw partition for offsets from `first` up to `until`.

    Each is stored with the time of its raw record: the same offset of a topic that was created
    again is another record.
    """

    def __init__(self, partition: int, first: int, until: int) -> None:
        self._partition = partition
        self.first = first
        self.until = until
        self._accepted = Offsets(CHUNKS_AT_MOST)
        self._refused = Offsets(CHUNKS_AT_MOST)
        # By the coordinates in the copies' headers, with a checksum of the value, because any
        # producer can write any header.
        self._forwarded = Offsets(CHUNKS_AT_MOST)
        # The same for accepted copies, with a checksum of id, content and time.
        self._accepted_copies = Offsets(CHUNKS_AT_MOST)
        # The coordinates in the headers of copies that are read again themselves.
        self._again = Offsets(CHUNKS_AT_MOST)
        # By review_id: the content accepted last before the current record, and its offset.
        self._latest: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._reached = -1

    def add_again(self, record: Record) -> None:
        """Add a record that will be read again. To be called before outcomes are added."""
        self._again.set(*claimed(record), 1)

    def add_accepted(self, accepted: Mapping[str, Any]) -> None:
        """A record of the same partition of `reviews.accepted`."""
        if accepted["source_topic"] != RAW or accepted["source_offset"] is None:
            return
        partition, offset = accepted["source_partition"], accepted["source_offset"]
        self._accepted.set(partition, offset, stamp(accepted["source_timestamp"]))
        if partition == self._partition:
            if offset >= self.first:
                return
            self._reached = max(self._reached, offset)
        elif self._again.get(partition, offset):
            return
        else:
            # The offset of its copy is unknown: take that of the outcomes around it.
            offset = self._reached
        self._accepted_before(accepted, offset)

    def add_accepted_copy(self, accepted: Mapping[str, Any], offset: int) -> None:
        """Add an accepted review whose raw record was a copy of one of this partition."""
        content = accepted["review_id"], accepted["content_hash"]
        told = content_sum(*content, accepted["source_timestamp"])
        self._accepted_copies.set(self._partition, offset, told)
        if offset < self.first:
            self._accepted_before(accepted, offset)

    def _accepted_before(self, accepted: Mapping[str, Any], offset: int) -> None:
        """Add an accepted review of a record before `first`.

        After a reset, the order of accepted reviews may differ from that of raw records.
        """
        known = self._latest.get(accepted["review_id"])
        if known is None or known[1] <= offset:
            self.passed(accepted["review_id"], accepted["content_hash"], offset)

    def add_dead_letter(self, letter: Mapping[str, Any]) -> None:
        """Add a dead letter of any partition: it holds the headers and the value of its record."""
        if letter["topic"] != RAW or letter["stage"] != "intake":
            return
        if letter["partition"] == self._partition:
            self._refused.set(letter["partition"], letter["offset"], stamp(letter["read_at"]))
        headers = tuple((header["key"], header["value"]) for header in letter["headers"])
        self.add_forwarded(
            Record(
                topic=RAW,
                partition=letter["partition"],
                offset=letter["offset"],
                key=letter["key"],
                value=letter["value"],
                headers=headers,
            )
        )

    def add_forwarded(self, record: Record) -> None:
        """Add a record of another raw partition, which may be a copy of one of this partition."""
        partition, offset = claimed(record)
        if partition == self._partition and record.partition != partition:
            self._forwarded.set(partition, offset, checksum(record))

    def covers(self, record: Record) -> bool:
        return record.offset < self.until

    def was_accepted(self, record: Record, origin_ms: int) -> bool:
        """Whether it was accepted under its own coordinates, or those in its header.

        `origin_ms`: the source timestamp that its outcome would have.
        """
        return any(
            self._accepted.get(*at) == stamp(origin_ms)
            for at in ((record.partition, record.offset), claimed(record))
        )

    def was_accepted_as_copy(
        self, record: Record, review_id: str, content_hash: str, origin_ms: int
    ) -> bool:
        """Whether it was forwarded to its own partition and accepted there."""
        known = self._accepted_copies.get(record.partition, record.offset)
        return known == content_sum(review_id, content_hash, origin_ms)

    def was_settled(self, record: Record) -> bool:
        """Whether it was dead-lettered, or forwarded to its own partition."""
        at = record.partition, record.offset
        was_refused = self._refused.get(*at) == stamp(bounded_ms(record.timestamp_ms))
        return was_refused or self._forwarded.get(*at) == checksum(record)

    def passed(self, review_id: str, content_hash: str, offset: int) -> None:
        """Note an accepted review when its raw record is passed."""
        self._latest.pop(review_id, None)
        self._latest[review_id] = content_hash, offset
        if len(self._latest) > LATEST_CONTENTS:
            self._latest.popitem(last=False)

    def was_dropped(self, review_id: str, content_hash: str) -> bool:
        """Whether it has no outcome because it was a duplicate of the review before it."""
        latest = self._latest.get(review_id)
        return latest is not None and latest[0] == content_hash


def claimed(record: Record) -> tuple[int, int]:
    """Partition and offset in the record's forwarding header; (-1, -1) without one."""
    match = CAME_FROM.fullmatch(record.header(FORWARDED_FROM) or b"")
    return (int(match[1]), int(match[2])) if match else (-1, -1)


def is_copy(record: Record) -> bool:
    """Whether the record's header says that it is a forwarded copy from another partition."""
    return claimed(record)[0] not in (-1, record.partition)


def stamp(milliseconds: int | None) -> int:
    """Never 0, which stands for none."""
    return (milliseconds or 0) & 0xFFFFFFFF or 1


def checksum(record: Record) -> int:
    """Never 0, which stands for none."""
    said = record.key or b"" if record.value is None else record.value
    return zlib.crc32(said) or 1


def content_sum(review_id: str, content_hash: str, origin_ms: int | None) -> int:
    """Never 0, which stands for none."""
    return zlib.crc32(f"{origin_ms}/{content_hash}/{review_id}".encode()) or 1


class IntakeResets:
    """Reads outcomes after a reset. Used by the threads that load partitions."""

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
        """The outcomes of the records that are read again; None where none is.

        Raises Unavailable to be called again, also while more has to be read.
        """
        start = starts[RAW]
        first = start.offset or 0
        if not start.reset and start.redo_until <= first:
            return None
        until = self._reader.bounds(RAW, partition)[1] if start.reset else start.redo_until
        if until <= first:
            return None
        reading = self._readings.get(partition)
        # After another replica had the partition meanwhile, `first` differs.
        if reading is None or reading[0].first != first:
            reading = self._begin(partition, first, until)
        judged, readback = self._readings[partition] = reading
        readback.go_on()
        # A load that was left behind, as by joining the group again, reads the same to its end.
        self._readings.pop(partition, None)
        starts[RAW] = replace(start, redo_until=max(until, judged.until))
        judged.until = max(until, judged.until)
        return judged

    def _begin(self, partition: int, first: int, until: int) -> tuple[Judged, ReadBack]:
        judged = Judged(partition, first, until)
        home = partition % self._partitions
        positions = {(RAW, partition): first}
        # A copy is written after its original, but producers set both timestamps, so read all.
        positions |= {(RAW, other): 0 for other in range(self._partitions) if other != partition}
        for topic in (ACCEPTED, DEAD_LETTER):
            positions |= {(topic, number): 0 for number in range(self._partitions)}

        def take_accepted(record: Record) -> None:
            copied_from, offset = claimed(record)
            is_copy = copied_from == partition
            if not is_copy and record.partition != home:
                return
            accepted = self._accepted_codec.decode_ours(record.value or b"")
            if record.partition == home:
                judged.add_accepted(accepted)
            if is_copy:
                judged.add_accepted_copy(accepted, offset)

        def take(record: Record) -> None:
            try:
                if record.topic == ACCEPTED:
                    take_accepted(record)
                elif record.topic == DEAD_LETTER:
                    judged.add_dead_letter(
                        self._dead_letters_codec.decode_ours(record.value or b"")
                    )
                elif record.partition == partition:
                    judged.add_again(record)
                else:
                    judged.add_forwarded(record)
            except DecodeError:
                # A foreign record is no outcome of intake.
                return

        self._log.warning(
            "the group has no committed offset here, or was reset: raw records with an outcome "
            "are skipped",
            partition=partition,
            first=first,
            until=until,
        )
        return judged, ReadBack(self._reader, positions, take)
