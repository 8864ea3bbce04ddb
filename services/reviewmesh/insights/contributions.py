"""First step, per partition of reviews: what each review contributes at its latest revision. Pure.

The contributions are the only state, one entry per review, each marked with the offset that it
came from. The counts are a sum over them, kept in memory and computed again after every recovery:
no second state is written that could disagree with the first.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from reviewmesh.insights.contribution import Bucket, Counts, add_counts, from_json, to_json

Entry = dict[str, Any]
"""As in the changelog: partition, offset, bucket, counts, and `left`: the other open
buckets that the review was counted in before."""


@dataclass(frozen=True, slots=True)
class BucketCounts:
    """A bucket's counts over one partition of reviews, as of that partition's offset `version`.

    Absolute, never a difference: it may be applied twice, or late.
    """

    partition: int
    version: int
    bucket: Bucket
    counts: Counts


class Contributions:
    """The contributions of the partitions that this process owns."""

    def __init__(self, entries: MutableMapping[str, Entry]) -> None:
        self._entries = entries
        self._sums: dict[tuple[int, Bucket], Counts] = {}
        self._versions: dict[int, int] = {}

    def recovered(self) -> None:
        """The entries were read back: compute the sums again."""
        self._sums.clear()
        self._versions.clear()
        for entry in self._entries.values():
            self._count(entry, 1)
            partition = entry["partition"]
            self._versions[partition] = max(self._versions.get(partition, -1), entry["offset"])

    def apply(
        self, review_id: str, partition: int, offset: int, bucket: Bucket, counts: Counts
    ) -> tuple[Entry | None, set[Bucket]]:
        """Replace what the review contributed before with this record's counts.

        Returns the entry to be written (None when a later record was applied already) and the
        buckets whose partials must be sent. A record that is read again asks for every bucket that
        its review was ever counted in, because the process may have died before they were sent.
        """
        old = self._entries.get(review_id)
        if old is not None and old["offset"] >= offset:
            return None, _buckets(old)
        left = _buckets(old) - {bucket} if old is not None else set()
        entry: Entry = {
            "partition": partition,
            "offset": offset,
            "bucket": list(bucket),
            "counts": to_json(counts),
            "left": [list(bucket) for bucket in sorted(left)],
        }
        if old is not None:
            self._count(old, -1)
        self._count(entry, 1)
        self._entries[review_id] = entry
        self._versions[partition] = max(self._versions.get(partition, -1), offset)
        return entry, _buckets(entry)

    def partial(self, partition: int, bucket: Bucket) -> BucketCounts:
        counts = self._sums.get((partition, bucket), {})
        return BucketCounts(partition, self._versions[partition], bucket, dict(counts))

    def forget(self, now_ms: int, retention_ms: int) -> int:
        """Drop what belongs to closed buckets; returns how many reviews are still held."""
        if not any(bucket.is_closed(now_ms, retention_ms) for _, bucket in self._sums):
            return len(self._entries)
        for review_id, entry in list(self._entries.items()):
            buckets = _buckets(entry)
            open_ = {item for item in buckets if not item.is_closed(now_ms, retention_ms)}
            if Bucket(*entry["bucket"]) not in open_:
                self._count(entry, -1)
                del self._entries[review_id]
            elif open_ != buckets:
                left = open_ - {Bucket(*entry["bucket"])}
                self._entries[review_id] = {**entry, "left": [list(item) for item in sorted(left)]}
        return len(self._entries)

    def _count(self, entry: Entry, sign: int) -> None:
        key = (entry["partition"], Bucket(*entry["bucket"]))
        sums = self._sums.setdefault(key, {})
        add_counts(sums, from_json(entry["counts"]), sign)
        if not sums:
            del self._sums[key]


def _buckets(entry: Entry) -> set[Bucket]:
    return {Bucket(*item) for item in (entry["bucket"], *entry["left"])}
