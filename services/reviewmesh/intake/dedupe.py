"""Intake's memory of reviews: latest accepted content, and how often each content was accepted."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

# Contents remembered per review: bounds the memory of a review that is edited very often.
REMEMBERED_CONTENTS = 50


@dataclass(slots=True)
class Remembered:
    content_hash: str
    accepted_ms: int
    acceptances: dict[str, int] = field(default_factory=dict)


class Dedupe:
    """One partition's memory, bounded by a window and a number of ids.

    Rebuilt from the partition's accepted reviews; nothing of it is stored elsewhere.
    """

    def __init__(self, window_ms: int, max_ids: int) -> None:
        self._window_ms = window_ms
        self._max_ids = max_ids
        self._reviews: OrderedDict[str, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._reviews)

    def is_duplicate(self, review_id: str, content_hash: str, now_ms: int) -> bool:
        """Whether this is the latest accepted content, accepted within the window."""
        known = self._reviews.get(review_id)
        return (
            known is not None
            and known.content_hash == content_hash
            and now_ms - known.accepted_ms < self._window_ms
        )

    def accepted_ms(self, review_id: str) -> int:
        """When it was accepted last, within the memory; else -1."""
        known = self._reviews.get(review_id)
        return known.accepted_ms if known else -1

    def acceptance(self, review_id: str, content_hash: str) -> int:
        """The number of the next acceptance of this content, counted within the memory."""
        known = self._reviews.get(review_id)
        return 1 + (known.acceptances.get(content_hash, 0) if known else 0)

    def accepted(
        self,
        review_id: str,
        content_hash: str,
        acceptance: int,
        at_ms: int,
        now_ms: int | None = None,
    ) -> None:
        """`now_ms`: where it is not `at_ms`, as when a replica whose clock is ahead accepted it, or
        an erasure before it. What is old is told by this clock."""
        known = self._reviews.pop(review_id, None) or Remembered(content_hash, at_ms)
        known.content_hash = content_hash
        known.accepted_ms = at_ms
        known.acceptances.pop(content_hash, None)
        known.acceptances[content_hash] = acceptance
        if len(known.acceptances) > REMEMBERED_CONTENTS:
            del known.acceptances[next(iter(known.acceptances))]
        self._reviews[review_id] = known
        while len(self._reviews) > self._max_ids:
            self._reviews.popitem(last=False)
        self._forget_old(at_ms if now_ms is None else min(at_ms, now_ms))

    def _forget_old(self, now_ms: int) -> None:
        while self._reviews:
            oldest = next(iter(self._reviews.values()))
            if now_ms - oldest.accepted_ms < self._window_ms:
                return
            self._reviews.popitem(last=False)
