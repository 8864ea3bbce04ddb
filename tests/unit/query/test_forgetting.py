"""Whether there is something to erase when a review is forgotten."""

from __future__ import annotations

import pytest

from reviewmesh.kafka.record import Record
from reviewmesh.query.forgetting import HeldRecord, can_erase
from reviewmesh.query.search import Occurrence


def held(topic: str, outcome: str = "is here", value: bytes | None = b"v") -> HeldRecord:
    return HeldRecord(Occurrence(Record(topic, 0, 0, b"k", value), outcome), 0, "")


@pytest.mark.parametrize("topic", ["raw", "accepted", "enriched", "partial", "dead-letter"])
def test_what_is_held_anywhere_can_be_erased(topic: str) -> None:
    assert can_erase([held("reviews.raw", "tombstone", None), held(f"reviews.{topic}")])


def test_where_only_tombstones_are_left_there_is_nothing_to_erase() -> None:
    assert not can_erase([held("reviews.raw", "tombstone", None)])
    assert not can_erase([held("reviews.partial", "tombstone", None)])
