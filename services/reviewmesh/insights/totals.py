"""Second step, per partition of businesses: a bucket's total over the review partitions. Pure."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from reviewmesh.insights.contribution import Bucket, Counts, add_counts, from_json, to_json
from reviewmesh.insights.contributions import BucketCounts

TotalKey = tuple[str, int, int, int]
"""A bucket and the partition of reviews whose partial it is."""

Entry = dict[str, Any]


class Totals:
    """The latest partial of every review partition; a total is their sum."""

    def __init__(self, entries: MutableMapping[TotalKey, Entry]) -> None:
        self._entries = entries
        self._partitions: dict[Bucket, set[int]] = {}

    def recovered(self) -> None:
        """The entries were read back: index them by bucket again."""
        self._partitions.clear()
        for business_id, start_ms, end_ms, partition in self._entries:
            bucket = Bucket(business_id, start_ms, end_ms)
            self._partitions.setdefault(bucket, set()).add(partition)

    def apply(self, partial: BucketCounts) -> tuple[TotalKey, Entry] | None:
        """What to write: nothing when a later version of the partial is known already."""
        key: TotalKey = (*partial.bucket, partial.partition)
        old = self._entries.get(key)
        if old is not None and old["version"] > partial.version:
            return None
        entry: Entry = {"version": partial.version, "counts": to_json(partial.counts)}
        self._entries[key] = entry
        self._partitions.setdefault(partial.bucket, set()).add(partial.partition)
        return key, entry

    def total(self, bucket: Bucket) -> Counts:
        total: Counts = {}
        for partition in self._partitions.get(bucket, ()):
            add_counts(total, from_json(self._entries[*bucket, partition]["counts"]))
        return total

    def forget(self, now_ms: int, retention_ms: int) -> int:
        """Drop closed buckets; returns how many are still held."""
        for bucket in [item for item in self._partitions if item.is_closed(now_ms, retention_ms)]:
            for partition in self._partitions.pop(bucket):
                del self._entries[*bucket, partition]
        return len(self._partitions)
