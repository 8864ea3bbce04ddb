"""Enriched reviews as a broker would give them, for exports without one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from reviewmesh.export.source import Item

DAY_MS = 86_400_000
FIRST_MS = 1_790_000_000_000


def example() -> dict[str, Any]:
    """One of the contract's examples, with every field."""
    text = resources.files("reviewmesh_schemas").joinpath("examples/enriched_review.json")
    found: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))[0]
    return found


EXAMPLE = example()


class Topic:
    """A topic in memory: one list a partition."""

    topic = "reviews.enriched"

    def __init__(self, partitions: int = 2, topic_id: int = 7) -> None:
        self.topic_id = topic_id
        self.logs: list[list[Item]] = [[] for _ in range(partitions)]
        self.first = [0] * partitions
        self.revision = 0

    def publish(self, number: int, day: int = 0, erased: bool = False, text: str = "") -> None:
        """A revision of review `number`, accepted so many days after the first."""
        log = self.logs[number % len(self.logs)]
        self.revision += 1
        accepted_at = FIRST_MS + day * DAY_MS
        review = EXAMPLE | {
            "review_id": f"r-{number}",
            "revision": self.revision,
            "text": text or f"version {self.revision}",
            "accepted_at": accepted_at,
            "erased_at": accepted_at if erased else None,
        }
        log.append(Item(number % len(self.logs), len(log), accepted_at, 1_000, review))

    def bounds(self) -> dict[int, tuple[int, int]]:
        return {
            partition: (self.first[partition], len(log)) for partition, log in enumerate(self.logs)
        }

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Item]:
        for partition, log in enumerate(self.logs):
            yield from log[starts[partition] : ends[partition]]

    def latest(self) -> dict[str, int]:
        """By id, the latest revision of what was not erased."""
        found: dict[str, int] = {}
        for log in self.logs:
            for item in log:
                assert item.review is not None
                found[item.review["review_id"]] = (
                    0 if item.review["erased_at"] is not None else item.review["revision"]
                )
        return {review_id: revision for review_id, revision in found.items() if revision}
