"""A set of reviews, by partition and offset of the accepted review. Pure."""

from __future__ import annotations

from reviewmesh.judge.answers import ReviewKey

_BITS = 1 << 15


class ReviewSet:
    """One bit per offset, so that a rollout of days fits in memory."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], bytearray] = {}

    def add(self, key: ReviewKey) -> bool:
        """Add a review. Whether it was not in the set before."""
        partition, offset = key
        number, at = divmod(offset, _BITS)
        page = self._pages.get((partition, number))
        if page is None:
            page = self._pages[partition, number] = bytearray(_BITS // 8)
        byte, bit = at // 8, 1 << at % 8
        is_new = not page[byte] & bit
        page[byte] |= bit
        return is_new
