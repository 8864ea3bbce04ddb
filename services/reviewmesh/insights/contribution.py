"""What one enriched review adds to the counts of its window. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Path = tuple[str, ...]
"""Names a counter: ("reviews",), ("sentiment", label), ("topic", id, "polarity", label), …"""

Counts = dict[Path, int]
"""Counters other than zero; whole numbers, so that adding and subtracting is exact."""

REVIEWS: Path = ("reviews",)
RATED: Path = ("rated",)
MILLISTARS: Path = ("millistars",)


class Bucket(NamedTuple):
    """One business in one window; an empty business stands for reviews that name none."""

    business_id: str
    start_ms: int
    end_ms: int

    def is_closed(self, now_ms: int, retention_ms: int) -> bool:
        """Whether the bucket is final: it no longer changes, and its state is dropped."""
        return self.end_ms + retention_ms <= now_ms


def bucket_of(record: Mapping[str, Any], appended_ms: int, window_ms: int) -> Bucket:
    """By the time at which the review was accepted, so that its revisions stay in one window."""
    at = appended_ms if record["accepted_at"] is None else int(record["accepted_at"])
    start = at - at % window_ms
    return Bucket(record["business_id"] or "", start, start + window_ms)


def review_counts(record: Mapping[str, Any]) -> Counts:
    """The counters of this one review; an erased one is counted nowhere."""
    if record["erased_at"] is not None:
        return {}
    counts: Counts = {REVIEWS: 1}
    if record["stars"] is not None:
        counts[RATED] = 1
        add_counts(counts, {MILLISTARS: round(record["stars"] * 1000)})
    sentiment = record["sentiment"]
    label = sentiment["label"] if sentiment else None
    if label:
        counts["sentiment", label] = 1
    for topic in record["topics"]:
        if ("topic", topic["id"], "reviews") in counts:
            continue
        counts["topic", topic["id"], "reviews"] = 1
        if label:
            counts["topic", topic["id"], "sentiment", label] = 1
        if topic["polarity"]:
            counts["topic", topic["id"], "polarity", topic["polarity"]] = 1
    return counts


def add_counts(counts: Counts, more: Mapping[Path, int], sign: int = 1) -> None:
    """Add counters in place (subtract with sign -1); counters at zero are removed."""
    for path, number in more.items():
        total = counts.get(path, 0) + sign * number
        if total:
            counts[path] = total
        else:
            counts.pop(path, None)


def to_json(counts: Mapping[Path, int]) -> list[list[Any]]:
    return [[*path, number] for path, number in sorted(counts.items())]


def from_json(rows: Iterable[list[Any]]) -> Counts:
    return {tuple(row[:-1]): row[-1] for row in rows}


def insight(bucket: Bucket, counts: Mapping[Path, int], now_ms: int) -> dict[str, Any]:
    """The ReviewInsight record of a bucket's counts."""
    rated = counts.get(RATED, 0)
    topics: dict[str, dict[str, Any]] = {}
    sentiment: dict[str, int] = {}
    for path, number in sorted(counts.items()):
        if path[0] == "sentiment":
            sentiment[path[1]] = number
        elif path[0] == "topic":
            _, topic_id, kind, *label = path
            topic = topics.setdefault(
                topic_id, {"id": topic_id, "reviews": 0, "sentiment": {}, "polarity": {}}
            )
            if label:
                topic[kind][label[0]] = number
            else:
                topic[kind] = number
    return {
        "business_id": bucket.business_id,
        "window_start": bucket.start_ms,
        "window_end": bucket.end_ms,
        "reviews": counts.get(REVIEWS, 0),
        "rated_reviews": rated,
        "mean_stars": counts.get(MILLISTARS, 0) / 1000 / rated if rated else None,
        "sentiment": sentiment,
        "topics": sorted(topics.values(), key=lambda topic: (-topic["reviews"], topic["id"])),
        "updated_at": now_ms,
    }


def insight_key(bucket: Bucket) -> bytes:
    """The Kafka key of a bucket's insight."""
    return f"{bucket.business_id}@{bucket.start_ms}-{bucket.end_ms}".encode()
