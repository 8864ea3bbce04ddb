"""When a record is deleted at the latest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.query.retention import Kept

HOUR_MS = 3_600_000
KEPT = Kept("delete", "LogAppendTime", 168 * HOUR_MS, 6 * HOUR_MS, 300_000, 60_000)


@st.composite
def appended(draw: st.DrawFn) -> list[int]:
    """Times of appends to one partition, in milliseconds."""
    pauses = draw(st.lists(st.integers(0, 10 * HOUR_MS), min_size=1, max_size=40))
    return [sum(pauses[: number + 1]) for number in range(len(pauses))]


def segments(times: list[int], segment_ms: int) -> list[list[int]]:
    """As Kafka closes them: by the first record that comes too long after a segment's first."""
    closed: list[list[int]] = [[times[0]]]
    for at in times[1:]:
        if at - closed[-1][0] > segment_ms:
            closed.append([])
        closed[-1].append(at)
    return closed


@given(appended(), st.integers(0, KEPT.check_ms))
def test_kafka_has_deleted_every_record_by_then(times: list[int], first_check: int) -> None:
    for segment in segments(times, KEPT.segment_ms):
        over = max(segment) + KEPT.retention_ms
        # Checks come at a fixed pace: the first one that finds the segment's retention over.
        checks = (over - first_check) // KEPT.check_ms + 1
        deleted = first_check + checks * KEPT.check_ms + KEPT.delay_ms
        for at in segment:
            by = KEPT.deleted_by(at)
            assert by is not None and deleted <= by


def test_the_time_is_the_sum_of_what_the_broker_waits_for() -> None:
    assert KEPT.deleted_by(0) == 174 * HOUR_MS + 360_000
    assert KEPT.no_time == ""


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (replace(KEPT, cleanup_policy="compact"), "compacted"),
        # Compaction merges segments, so that a record may have much later ones beside it.
        (replace(KEPT, cleanup_policy="compact,delete"), "compacted"),
        (replace(KEPT, retention_ms=-1), "never"),
        (replace(KEPT, timestamp_type="CreateTime"), "CreateTime"),
    ],
)
def test_no_time_is_given_where_kafka_promises_none(kept: Kept, why: str) -> None:
    assert kept.deleted_by(0) is None
    assert why in kept.no_time
