"""Which reviews are newer than what a campaign chose: accepted or published since. Pure.

An answer done again goes into the enriched review that the campaign found. Where anything of that
review came since, the answer belongs to something old, and is dropped.
"""

from __future__ import annotations

# Some 60 bytes each; what is older than the campaign is not kept.
REVIEWS_AT_MOST = 500_000


class Newer:
    """The ids accepted at `accepted_since` or later, or published at `enriched_since` or later."""

    def __init__(self, accepted_since: int, enriched_since: int) -> None:
        self.accepted_since = accepted_since
        self.enriched_since = enriched_since
        self._ids: set[int] = set()

    def add(self, review_id: str) -> None:
        if len(self._ids) < REVIEWS_AT_MOST:
            self._ids.add(hash(review_id))

    def read_back(self, ids: set[int]) -> None:
        """What was accepted and published before this was made; `hash` of each id."""
        self._ids |= ids

    def __contains__(self, review_id: str) -> bool:
        return hash(review_id) in self._ids

    def covers(self, accepted_since: int, enriched_since: int) -> bool:
        """Whether it can tell for a campaign that chose then."""
        return self.accepted_since <= accepted_since and self.enriched_since <= enriched_since

    @property
    def is_full(self) -> bool:
        """Whether more came than can be remembered, so that nothing is proven any more."""
        return len(self._ids) >= REVIEWS_AT_MOST
