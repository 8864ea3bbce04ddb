"""Reviews among the recent ones by their text, business, topic and time of acceptance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record
from reviewmesh.query.connection import Connection
from reviewmesh.query.reading import offsets, partitions_of, read_until
from reviewmesh_schemas.names import ENRICHED

READ_AT_MOST = 30_000
"""Records, over all partitions."""
FOUND_AT_MOST = 100


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for; None and an empty text let everything pass."""

    text: str = ""
    """In the title or the text, in upper or lower case."""
    business_id: str | None = None
    """Empty: reviews without a business."""
    topic: str = ""
    since_ms: int | None = None
    """Accepted then or later, and before `until_ms`."""
    until_ms: int | None = None

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.text), re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FoundReview:
    """The latest revision of a review that matches."""

    record: Record
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FoundReviews:
    reviews: tuple[FoundReview, ...]
    """Newest first, at most FOUND_AT_MOST."""
    number: int
    """Of all that match among those that were read."""
    read: int
    """Records."""
    oldest_ms: int | None
    newest_ms: int | None
    """When the first and the last record that was read was published."""
    is_all: bool
    """Whether the topic holds no other records that may match."""


def find_recent(connection: Connection, sought: Sought) -> FoundReviews:
    """Reads the newest enriched records, or those published from `since_ms` on.

    Raises CannotReach and KafkaException.
    """
    wanted = partitions_of(connection, ENRICHED)
    ends = offsets(connection, wanted)
    first = offsets(connection, wanted, OFFSET_BEGINNING)
    each = max(1, READ_AT_MOST // len(wanted))
    if sought.since_ms is None:
        starts = {at: max(first[at], ends[at] - each) for at in wanted}
        is_all = starts == first
    else:
        # A review is enriched after it was accepted.
        at_time = offsets(connection, wanted, sought.since_ms)
        starts = {at: at_time[at] if at_time[at] >= 0 else ends[at] for at in wanted}
        until = {at: min(ends[at], starts[at] + each) for at in wanted}
        is_all, ends = until == ends, until
    return match_recent(
        connection.codec(ENRICHED), sought, read_until(connection, starts, ends), is_all
    )


def match_recent(
    codec: Codec, sought: Sought, records: Iterable[Record], is_all: bool
) -> FoundReviews:
    """`records`: each review's in their order."""
    pattern = sought.pattern
    found: dict[tuple[MeshPartition, bytes | None], FoundReview] = {}
    read, times = 0, []
    for record in records:
        read += 1
        times.append(record.timestamp_ms)
        at = MeshPartition(record.topic, record.partition), record.key
        # Only the latest record of a review counts.
        found.pop(at, None)
        value = record.value or b""
        # Avro stores text as it is: most records need no decoding.
        if sought.text and pattern.search(value.decode(errors="ignore")) is None:
            continue
        try:
            content = codec.decode(value)
        except DecodeError:
            continue
        if _matches(content, sought, pattern):
            found[at] = FoundReview(record, content)
    newest = sorted(found.values(), key=lambda one: one.record.timestamp_ms, reverse=True)
    return FoundReviews(
        reviews=tuple(newest[:FOUND_AT_MOST]),
        number=len(newest),
        read=read,
        oldest_ms=min(times, default=None),
        newest_ms=max(times, default=None),
        is_all=is_all,
    )


def _matches(content: Mapping[str, Any], sought: Sought, pattern: re.Pattern[str]) -> bool:
    if sought.business_id is not None and (content["business_id"] or "") != sought.business_id:
        return False
    if sought.topic and sought.topic not in {topic["id"] for topic in content["topics"]}:
        return False
    accepted = content["accepted_at"]
    if sought.since_ms is not None and accepted < sought.since_ms:
        return False
    if sought.until_ms is not None and accepted >= sought.until_ms:
        return False
    texts = (content["title"], content["text"])
    return not sought.text or any(pattern.search(text) for text in texts if text)
