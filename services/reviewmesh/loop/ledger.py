"""The completion ledger: which offsets of a partition are finished when work ends out of order.

The committed offset is the lowest unfinished one. Finished offsets beyond it are stored in the
metadata of the commit, so that a restart reads the ledger back and skips them. Offsets have gaps
(transaction markers, aborted and compacted records); a gap counts as finished, since it is never
delivered.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

MARK = "rm1:"
METADATA_LIMIT = 4095
# A bitmap of this many offsets fits into the metadata even if it does not compress.
LARGEST_WINDOW = 24_000
LARGEST_BITMAP = LARGEST_WINDOW // 8 + 1
NOTES = struct.Struct(">BHHBQQ")
TOPIC_ID = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Notes:
    """What the metadata of a commit holds besides the finished offsets, for the next owner."""

    # The process that wrote this had not released the partition.
    running: bool = False
    # Number of processes that died in a row with the same lowest unfinished record.
    deaths: int = 0
    # Most records in flight during a search for a poison record; 0 without a search.
    group_size: int = 0
    # Number of deaths with only the lowest unfinished record in flight.
    deaths_alone: int = 0
    # See `Start.redo_until`.
    redo_until: int = 0
    # `group_size` counts from this offset: records before it were in flight and killed nothing.
    survived_until: int = 0
    # Kafka's id of the topic of these offsets, shortened; 0 if unknown.
    topic_id: int = 0

    def deaths_with(self, own: bool) -> int:
        """Deaths including the process that wrote this, or 0 if it released the partition.

        `own`: this process wrote it, and lives.
        """
        return self.deaths + 1 if self.running and not own else 0

    def packed(self) -> bytes:
        deaths, group_size = min(self.deaths, 0xFFFF), min(self.group_size, 0xFFFF)
        deaths_alone = min(self.deaths_alone, 0xFF)
        counts = NOTES.pack(
            self.running, deaths, group_size, deaths_alone, self.redo_until, self.survived_until
        )
        return counts + TOPIC_ID.pack(self.topic_id)


@dataclass(frozen=True, slots=True)
class Commit:
    """What goes into the consumer group's commit for one partition."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class Restored:
    """The content of committed metadata."""

    finished: frozenset[int] = frozenset()
    notes: Notes = Notes()
    # Whether the mesh wrote the metadata. A reset of the group leaves it empty.
    marked: bool = False
    # Why existing metadata could not be used.
    problem: str = ""


def restore(offset: int, metadata: str | None) -> Restored:
    """Parse the metadata committed with `offset`; metadata of other tools counts as none.

    Never raises: a commit that cannot be parsed must not block its partition. At worst, records
    beyond the offset are processed again.
    """
    if not metadata:
        return Restored()
    if not metadata.startswith(MARK):
        return Restored(
            problem=f"expected commit metadata that starts with {MARK!r}, got {metadata[:16]!r}"
        )
    inflate = zlib.decompressobj()
    try:
        packed = base64.b64decode(metadata[len(MARK) :], validate=True)
        bitmap = inflate.decompress(packed, LARGEST_BITMAP)
    except (ValueError, binascii.Error, zlib.error) as error:
        return Restored(problem=f"commit metadata is damaged: {error}")
    if not inflate.eof:
        return Restored(problem="commit metadata is damaged: it ends too early or is too long")
    return Restored(_offsets(offset, bitmap), _notes(inflate.unused_data), marked=True)


def _offsets(offset: int, bitmap: bytes) -> frozenset[int]:
    return frozenset(
        offset + 8 * index + bit
        for index, byte in enumerate(bitmap)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    )


def _notes(packed: bytes) -> Notes:
    """Older versions wrote no notes, or no topic id; later versions may append fields."""
    if len(packed) < NOTES.size:
        return Notes()
    running, *numbers = NOTES.unpack_from(packed)
    topic_id = 0
    if len(packed) >= NOTES.size + TOPIC_ID.size:
        (topic_id,) = TOPIC_ID.unpack_from(packed, NOTES.size)
    return replace(Notes(bool(running), *numbers), topic_id=topic_id)


class CompletionLedger:
    """Tracks one partition from the offset that its group has committed."""

    def __init__(
        self,
        start: int,
        finished: Set[int] = frozenset(),
        max_in_flight: int = 1_000,
        max_window: int = 20_000,
    ) -> None:
        if max_window > LARGEST_WINDOW:
            raise ValueError(
                f"expected a window of at most {LARGEST_WINDOW} offsets, got {max_window}"
            )
        self._position = start
        # Records are delivered in offset order, which a dict keeps: the first key is the lowest.
        self._in_flight: dict[int, None] = {}
        self._restored = {offset for offset in finished if offset >= start}
        self._max_in_flight = max_in_flight
        self._max_window = max_window

    @property
    def head(self) -> int:
        """The lowest unfinished offset, which is the one to commit."""
        return next(iter(self._in_flight), self._position)

    @property
    def position(self) -> int:
        """The offset after the last one delivered."""
        return self._position

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def window(self) -> int:
        """Offsets between the head and the last delivered one."""
        return self._position - self.head

    def has_room_for(self, offset: int) -> bool:
        """Whether delivering `offset` keeps both limits; always true when nothing is in flight."""
        if not self._in_flight:
            return True
        return len(self._in_flight) < self._max_in_flight and offset - self.head < self._max_window

    def has_slack(self) -> bool:
        """Whether a paused partition may resume: well below both limits, as hysteresis."""
        return (
            len(self._in_flight) <= self._max_in_flight * 3 // 4
            and self.window <= self._max_window * 3 // 4
        )

    def is_new(self, offset: int) -> bool:
        """Whether a delivered offset is new: neither delivered to this process nor finished
        before."""
        return offset >= self._position and offset not in self._restored

    def deliver(self, offset: int) -> bool:
        """Mark `offset` in flight; False when it must be skipped, because it is not new."""
        if offset < self._position:
            return False
        self._position = offset + 1
        if offset in self._restored:
            self._restored.discard(offset)
            return False
        self._in_flight[offset] = None
        return True

    def finish(self, offset: int) -> bool:
        """Mark `offset` finished; False, and no change, when it was not in flight."""
        return self._in_flight.pop(offset, False) is None

    def take_back(self, offsets: Iterable[int]) -> None:
        """Undo `finish`: the transaction was aborted."""
        self._in_flight = dict.fromkeys(sorted({*self._in_flight, *offsets}))

    def reached_end(self, end: int) -> None:
        """Move the position to `end`, so that transaction markers before it do not count as lag."""
        if end > self._position:
            self._position = end

    def commit(self, notes: Notes = Notes()) -> Commit:
        """The commit from which a restart restores this ledger."""
        head = self.head
        # Only offsets that are never delivered lie further on: an aborted transaction may take any
        # number of them.
        end = min(max(self._position, max(self._restored, default=-1) + 1), head + LARGEST_WINDOW)
        bitmap = b"" if len(self._in_flight) == end - head else self._bitmap(head, end)
        # Behind the compressed bitmap, because versions without notes ignore what follows it.
        packed = zlib.compress(bitmap, 6) + notes.packed()
        metadata = MARK + base64.b64encode(packed).decode("ascii")
        assert len(metadata) <= METADATA_LIMIT, (
            f"commit metadata of {len(metadata)} characters exceeds {METADATA_LIMIT}: "
            f"window {end - head}, in flight {len(self._in_flight)}"
        )
        return Commit(head, metadata)

    def _bitmap(self, head: int, end: int) -> bytes:
        bitmap = bytearray((end - head + 7) // 8)
        done = min(self._position, end) - head
        bitmap[: done // 8] = b"\xff" * (done // 8)
        if done % 8:
            bitmap[done // 8] = (1 << done % 8) - 1
        for offset in self._in_flight:
            index = offset - head
            bitmap[index >> 3] &= ~(1 << (index & 7)) & 0xFF
        for offset in self._restored:
            index = offset - head
            if 0 <= index < end - head:
                bitmap[index >> 3] |= 1 << (index & 7)
        return bytes(bitmap)
