"""Which reviews were answered already, by partition and offset. Pure."""

from __future__ import annotations

from reviewmesh.judge.answers import Place

_BITS = 1 << 15


class Places:
    """A bit for each offset, so that a rollout of days fits."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], bytearray] = {}

    def add(self, place: Place) -> bool:
        """Whether it is new."""
        partition, offset = place
        number, at = divmod(offset, _BITS)
        page = self._pages.get((partition, number))
        if page is None:
            page = self._pages[partition, number] = bytearray(_BITS // 8)
        byte, bit = at // 8, 1 << at % 8
        is_new = not page[byte] & bit
        page[byte] |= bit
        return is_new
