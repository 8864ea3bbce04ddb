"""The completion ledger: which offsets of a partition are finished when work ends out of order.

The committed offset is the lowest unfinished one. What is finished beyond it travels in the
commit's own metadata, so that a restart reads the ledger back and skips what is done. Offsets
have gaps (transaction markers, aborted and compacted records); a gap counts as finished, since it
is never delivered.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Set
from dataclasses import dataclass

MARK = "rm1:"
METADATA_LIMIT = 4095
# A bitmap of this many offsets fits the metadata even where it does not compress at all.
LARGEST_WINDOW = 24_000


class LedgerMetadataError(ValueError):
    """Committed metadata that this version cannot read."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What goes into the consumer group's commit for one partition."""

    offset: int
    metadata: str


def decode_finished(offset: int, metadata: str | None) -> set[int]:
    """Offsets at or after `offset` that are finished, by the metadata committed with it.

    Empty metadata (an operator reset the group) means that nothing beyond is finished.
    Raises LedgerMetadataError on a mark or a body that this version did not write.
    """
    if not metadata:
        return set()
    if not metadata.startswith(MARK):
        raise LedgerMetadataError(
            f"expected commit metadata to start with {MARK!r}, got {metadata[:16]!r}; "
            "finish the records in flight with the version that wrote it, or reset the group"
        )
    try:
        bitmap = zlib.decompress(base64.b64decode(metadata[len(MARK) :], validate=True))
    except (binascii.Error, zlib.error) as error:
        raise LedgerMetadataError(f"commit metadata is damaged: {error}") from error
    return {
        offset + 8 * index + bit
        for index, byte in enumerate(bitmap)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    }


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
        # Deliveries come in offset order and a dict keeps it: the first key is the lowest.
        self._in_flight: dict[int, None] = {}
        self._restored = {offset for offset in finished if offset >= start}
        self._max_in_flight = max_in_flight
        self._max_window = max_window

    @property
    def head(self) -> int:
        """The lowest unfinished offset: what is committed."""
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
        """Room enough to go on reading after a pause, so that a partition does not flutter."""
        return (
            len(self._in_flight) <= self._max_in_flight * 3 // 4
            and self.window <= self._max_window * 3 // 4
        )

    def is_new(self, offset: int) -> bool:
        """Whether a delivered offset is work: neither seen in this life nor finished before."""
        return offset >= self._position and offset not in self._restored

    def is_unfinished(self, offset: int) -> bool:
        return offset in self._in_flight

    def deliver(self, offset: int) -> bool:
        """Take `offset` in flight; False when it is to be skipped."""
        if offset < self._position:
            return False
        self._position = offset + 1
        if offset in self._restored:
            self._restored.discard(offset)
            return False
        self._in_flight[offset] = None
        return True

    def finish(self, offset: int) -> None:
        """Mark `offset` finished. Doing so again changes nothing."""
        self._in_flight.pop(offset, None)

    def reached_end(self, end: int) -> None:
        """The partition was read to `end`: markers before it must not stand as lag."""
        if end > self._position:
            self._position = end

    def commit(self) -> Commit:
        """The commit that a restart would read back."""
        head = self.head
        end = max(self._position, max(self._restored, default=-1) + 1)
        if len(self._in_flight) == end - head:
            return Commit(head, "")
        bitmap = bytearray((end - head + 7) // 8)
        done = self._position - head
        bitmap[: done // 8] = b"\xff" * (done // 8)
        if done % 8:
            bitmap[done // 8] = (1 << done % 8) - 1
        for offset in self._in_flight:
            index = offset - head
            bitmap[index >> 3] &= ~(1 << (index & 7)) & 0xFF
        for offset in self._restored:
            index = offset - head
            if index >= 0:
                bitmap[index >> 3] |= 1 << (index & 7)
        metadata = MARK + base64.b64encode(zlib.compress(bytes(bitmap), 6)).decode("ascii")
        assert len(metadata) <= METADATA_LIMIT, (
            f"commit metadata of {len(metadata)} characters exceeds {METADATA_LIMIT}: "
            f"window {end - head}, in flight {len(self._in_flight)}"
        )
        return Commit(head, metadata)
