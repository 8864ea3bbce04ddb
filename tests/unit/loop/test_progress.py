"""Standing still is told from having nothing to do and from waiting for others."""

from __future__ import annotations

import pytest

from reviewmesh.loop.progress import STANDS_STILL_AFTER_S, Progress

LATER = STANDS_STILL_AFTER_S + 1


def check(progress: Progress, now: float, **changes: object) -> str:
    seen = {"position": 10, "head": 5, "in_flight": 0, "unread": 0, "waits_for": ""} | changes
    return progress.check(**seen, now=now)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [{"unread": 3}, {"in_flight": 2}])
def test_what_could_be_done_and_is_not_stands_still(state: dict[str, object]) -> None:
    progress = Progress()
    assert check(progress, 0, **state) == ""
    assert check(progress, STANDS_STILL_AFTER_S - 1, **state) == ""
    assert check(progress, LATER, **state) != ""


@pytest.mark.parametrize(
    "state", [{}, {"in_flight": 2, "waits_for": "no worker"}, {"waits_for": "no worker"}]
)
def test_nothing_to_do_and_waiting_for_others_is_no_standing_still(
    state: dict[str, object],
) -> None:
    progress = Progress()
    check(progress, 0, **state)
    assert check(progress, LATER, **state) == ""


def test_a_head_that_moves_is_progress() -> None:
    progress = Progress()
    for second in range(100):
        assert check(progress, second, in_flight=1, head=5 + second) == ""


def test_later_records_finishing_do_not_hide_that_the_first_does_not() -> None:
    progress = Progress()
    words = [check(progress, s, in_flight=9, position=10 + s, unread=5) for s in range(40)]
    assert words[-1].startswith("offset 5")


def test_time_counts_from_when_the_cause_outside_was_over() -> None:
    progress = Progress()
    check(progress, 0, in_flight=1, waits_for="no worker")
    check(progress, 100, in_flight=1, waits_for="no worker")
    assert check(progress, 101, in_flight=1) == ""
    assert check(progress, 100 + LATER, in_flight=1) != ""
