"""Which accepted reviews are published already, after an operator's reset. Pure.

A review in `reviews.enriched` is not published a second time, complete or not, and an older version
is not published after a newer one.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Mapping
from typing import Any

# Reviews whose newest published version is remembered; some 30 MB.
NEWEST_VERSIONS = 200_000


class Published:
    """The published reviews among the accepted offsets from `first` up to `until`.

    Four bytes per offset: a checksum of the review, since the same offset of a topic that was
    created again is another review. `covered_from_ms`: records of older reviews may have been
    published and deleted since, so nothing is known of them.
    """

    def __init__(self, first: int, until: int, covered_from_ms: float) -> None:
        self._first = first
        self.until = until
        self.covered_from_ms = covered_from_ms
        self._reviews = array("I", bytes(4 * max(0, until - first)))
        self._newest: dict[int, int] = {}

    def serves(self, first: int, until: int) -> bool:
        """Whether this was read for the same reset, possibly with an earlier end."""
        return self._first == first and self.until <= until

    def add(self, record: Mapping[str, Any]) -> None:
        """A record of `reviews.enriched`, in the order of its offsets."""
        index = record["accepted_offset"] - self._first
        if not 0 <= index < len(self._reviews):
            return
        self._reviews[index] = checksum(record)
        key = hash(record["review_id"])
        newest = max(record["accepted_offset"], self._newest.pop(key, -1))
        self._newest[key] = newest
        if len(self._newest) > NEWEST_VERSIONS:
            del self._newest[next(iter(self._newest))]

    def why_not(self, offset: int, accepted: Mapping[str, Any]) -> str:
        """Why the review must not be published again; empty when it has to be."""
        if not self._first <= offset < self.until:
            return ""
        if self._reviews[offset - self._first] == checksum(accepted):
            return "published"
        if self._newest.get(hash(accepted["review_id"]), -1) > offset:
            return "superseded"
        return ""

    def may_have_been_deleted(self, offset: int, appended_at: float) -> bool:
        return offset < self.until and appended_at * 1000 < self.covered_from_ms


def checksum(review: Mapping[str, Any]) -> int:
    """Never 0, which marks an empty entry."""
    return zlib.crc32(f"{review['review_id']}\0{review['content_hash']}".encode()) or 1
