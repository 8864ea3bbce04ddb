"""The source of a raw record, as far as its headers can be trusted.

Any producer can write any header, and Kafka stores no principal with a record. The coordinates in a
forwarded record are trusted only with intake's own message authentication code (HMAC). Without a
secret they are not trusted, and a forwarded review's source is the forwarded copy.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from reviewmesh.clock import bounded_ms, plausible_ms
from reviewmesh.kafka.record import (
    FORWARDED_FROM,
    FORWARDED_MAC,
    ORIGIN_TIMESTAMP,
    Headers,
    Record,
)

LONGEST_NUMBER = 19
LARGEST_OFFSET = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The coordinates of the producer's own record, also after forwarding."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Provenance:
    def __init__(self, topic: str, secret: bytes | None) -> None:
        self._topic = topic
        self._secret = secret

    def coordinates(self, record: Record) -> Coordinates:
        timestamp = _number(record.header(ORIGIN_TIMESTAMP))
        if timestamp is None or not plausible_ms(timestamp):
            timestamp = bounded_ms(record.timestamp_ms)
        forwarded = record.header(FORWARDED_FROM)
        if forwarded is not None and self._is_ours(record, forwarded):
            topic, _, numbers = forwarded.partition(b"/")
            partition, _, offset = (_number(part) for part in numbers.partition(b"/"))
            if topic == self._topic.encode() and partition is not None and offset is not None:
                return Coordinates(self._topic, partition, offset, timestamp)
        return Coordinates(record.topic, record.partition, record.offset, timestamp)

    def forwarded(self, record: Record) -> Headers:
        """The record's own headers, and those with its source."""
        origin = self.coordinates(record)
        came_from = f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
        kept = tuple(
            (name, value)
            for name, value in record.headers
            if name not in (FORWARDED_FROM, FORWARDED_MAC, ORIGIN_TIMESTAMP)
        )
        mac = self._mac(record, came_from)
        return (
            *kept,
            (FORWARDED_FROM, came_from),
            *(((FORWARDED_MAC, mac),) if mac else ()),
            (ORIGIN_TIMESTAMP, str(origin.timestamp_ms).encode()),
        )

    def _is_ours(self, record: Record, forwarded: bytes) -> bool:
        mac = self._mac(record, forwarded)
        return mac is not None and hmac.compare_digest(mac, record.header(FORWARDED_MAC) or b"")

    def _mac(self, record: Record, came_from: bytes) -> bytes | None:
        """Over the value too, so that it is not valid for another record."""
        if self._secret is None:
            return None
        # A tombstone says all with its key, which forwarding keeps.
        said = record.key or b"" if record.value is None else record.value
        digest = hashlib.sha256(said).digest()
        return hmac.new(self._secret, digest + came_from, hashlib.sha256).hexdigest().encode()


def _number(digits: bytes | None) -> int | None:
    """The number in a header that should hold an offset or a time."""
    if digits is None or not digits.isdigit() or len(digits) > LONGEST_NUMBER:
        return None
    number = int(digits)
    return number if number <= LARGEST_OFFSET else None
