"""What was published since a campaign chose. Pure.

An answer done again goes into the enriched review that the campaign found. Where a higher revision
of that review is out, the answer belongs to something old, and is dropped.
"""

from __future__ import annotations

# Some 110 bytes each.
REVIEWS_AT_MOST = 200_000


class Newer:
    """The highest revision of each review that was published at `since` or behind it.

    `since` is an offset of `reviews.enriched`; what was published before is known to the campaign.
    """

    def __init__(self, since: int) -> None:
        self.since = since
        self._revisions: dict[int, int] = {}

    def add(self, review_id: str, revision: int) -> None:
        key = hash(review_id)
        known = self._revisions.get(key)
        if known is not None or not self.is_full:
            self._revisions[key] = max(revision, known or 0)

    def take_in(self, other: Newer) -> None:
        """What was read back."""
        for key, revision in other._revisions.items():
            self._revisions[key] = max(revision, self._revisions.get(key, 0))

    def has_newer(self, review_id: str, revision: int) -> bool:
        return self._revisions.get(hash(review_id), 0) > revision

    @property
    def is_full(self) -> bool:
        """Whether more came than can be remembered, so that nothing is proven any more."""
        return len(self._revisions) >= REVIEWS_AT_MOST
