"""When a campaign is over."""

from __future__ import annotations

import time

import pytest

from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.query.campaigns import Campaign, Status

DAY_MS = 24 * 3_600_000


def campaign(state: str = RUNNING, days_ago: float = 0) -> Campaign:
    created_ms = int(time.time() * 1000 - days_ago * DAY_MS)
    return Campaign("topic-1", "topic", "stars > 3", state, 10, {}, created_ms)


@pytest.mark.parametrize(
    ("state", "answered", "published", "dropped", "is_over"),
    [
        (RUNNING, 10, 8, 2, True),
        (RUNNING, 10, 8, 1, False),
        (RUNNING, 8, 8, 0, False),
        (PAUSED, 8, 8, 0, False),
        (CANCELLED, 8, 7, 1, True),
        (CANCELLED, 8, 7, 0, False),
    ],
)
def test_it_is_over_when_nothing_is_still_to_come(
    state: str, answered: int, published: int, dropped: int, is_over: bool
) -> None:
    status = Status(campaign(state), 10, answered, published, dropped)
    assert status.is_over is is_over


def test_it_is_over_once_its_requests_are_no_longer_kept() -> None:
    """Its own record is kept for longer: it would be taken for one that was never sent."""
    assert not Status(campaign(days_ago=6.9), 10, 0, 0, 0).is_over
    assert Status(campaign(days_ago=7.1), 0, 0, 0, 0).is_over
