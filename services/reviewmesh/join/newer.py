"""What was published since a campaign chose its reviews. Pure.

An answer done again goes into the enriched review that the campaign found. If a higher revision of
that review was published, the answer is outdated and dropped.
"""

from __future__ import annotations

# Some 110 bytes each.
REVIEWS_AT_MOST = 200_000


class Newer:
    """The highest revision of each review that was published at the offset `since` or later.

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
        """Add what was read from the topic."""
        for key, revision in other._revisions.items():
            self._revisions[key] = max(revision, self._revisions.get(key, 0))

    def has_newer(self, review_id: str, revision: int) -> bool:
        return self._revisions.get(hash(review_id), 0) > revision

    @property
    def is_full(self) -> bool:
        """Whether more reviews came than can be remembered, so that absence proves nothing."""
        return len(self._revisions) >= REVIEWS_AT_MOST
