"""Whether a review is replaced when it is forgotten."""

from __future__ import annotations

import pytest

from reviewmesh.kafka.record import Record
from reviewmesh.query.forgetting import HeldRecord, can_replace
from reviewmesh.query.search import NO_OUTCOME, WAITS_FOR_INTAKE, Occurrence


def held(topic: str, outcome: str = "is here", value: bytes | None = b"v") -> HeldRecord:
    return HeldRecord(Occurrence(Record(topic, 0, 0, b"k", value), outcome), 0, "")


@pytest.mark.parametrize("topic", ["accepted", "topic", "enriched", "partial", "reprocess"])
def test_what_was_accepted_is_replaced(topic: str) -> None:
    assert can_replace([held("reviews.raw", "accepted at 0/0"), held(f"reviews.{topic}")])


@pytest.mark.parametrize("outcome", [WAITS_FOR_INTAKE, NO_OUTCOME])
def test_what_is_or_may_be_accepted_is_replaced(outcome: str) -> None:
    assert can_replace([held("reviews.raw", outcome)])


def test_what_consumers_never_had_is_not_replaced() -> None:
    refused = [held("reviews.raw", "dead letter 0/0"), held("reviews.dead-letter", "intake EMPTY")]
    assert not can_replace([*refused, held("reviews.raw", "tombstone", None)])
    assert not can_replace([held("reviews.partial", "tombstone", None)])
