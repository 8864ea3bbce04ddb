"""How many items a worker lets in, and what it tells those it does not."""

from __future__ import annotations

import asyncio

import pytest

from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.serving.admission import LONGEST_HINT_MS, SHORTEST_HINT_MS, Admission, Full


def hint(admission: Admission, items: int, lane: Lane = Lane.INTERACTIVE) -> int:
    with pytest.raises(Full) as refused, admission.admit(items, lane):
        pass
    return refused.value.retry_after_ms


def test_what_fits_is_let_in_and_room_comes_back_even_from_a_call_that_failed() -> None:
    admission = Admission(10)
    with admission.admit(6), pytest.raises(RuntimeError), admission.admit(4):
        assert admission.items == 10
        hint(admission, 1)
        raise RuntimeError
    assert admission.items == 0


def test_a_call_larger_than_the_limit_is_let_in_alone_only() -> None:
    admission = Admission(10)
    with admission.admit(11):
        hint(admission, 1)
    with admission.admit(1):
        hint(admission, 11)


def test_a_backfill_leaves_a_quarter_of_the_places_to_interactive_calls() -> None:
    admission = Admission(8)
    with admission.admit(4, Lane.BACKFILL), admission.admit(2, Lane.BACKFILL) as free:
        hint(admission, 1, Lane.BACKFILL)
        with admission.admit(2):
            hint(admission, 1)
            free(2)
            with admission.admit(2, Lane.BACKFILL):
                hint(admission, 1)
    # None is kept for a backfill, and what it had came back.
    with admission.admit(8):
        hint(admission, 1, Lane.BACKFILL)
    with admission.admit(1), admission.admit(6, Lane.BACKFILL):
        assert admission.items == 7
    assert admission.items == 0


def test_a_backfill_call_larger_than_its_share_is_let_in_as_the_only_one_of_a_backfill() -> None:
    admission = Admission(8)
    with admission.admit(1), admission.admit(7, Lane.BACKFILL):
        assert admission.items == 8
    with admission.admit(1, Lane.BACKFILL):
        hint(admission, 7, Lane.BACKFILL)


def test_the_hint_follows_how_fast_places_come_free_within_its_bounds() -> None:
    now = 0.0
    admission = Admission(100, lambda: now)

    def freed(items: int, each_s: float) -> None:
        nonlocal now
        with admission.admit(items) as free:
            for _ in range(items):
                now += each_s
                free(1)

    with admission.admit(10):
        freed(90, 0.0001)
        assert hint(admission, 91) == SHORTEST_HINT_MS
        freed(90, 0.01)
        assert hint(admission, 110) == pytest.approx(200, rel=0.05)
        now += 0.01
    # Time in which the worker was empty tells nothing.
    now += 3600
    with admission.admit(10):
        freed(1, 0.01)
        assert SHORTEST_HINT_MS < hint(admission, 110) < LONGEST_HINT_MS
        freed(90, 1.0)
        assert hint(admission, 110) == LONGEST_HINT_MS


def test_the_hint_counts_places_that_come_free_together() -> None:
    now = 0.0
    admission = Admission(64, lambda: now)
    for _ in range(100):
        with admission.admit(32):
            now += 0.32
    with admission.admit(64):
        assert hint(admission, 32) == pytest.approx(320, rel=0.05)


def test_emptied_waits_for_the_last_item_and_no_longer_than_it_may() -> None:
    async def scenario() -> None:
        admission = Admission(10)
        assert await admission.emptied(0.01)
        with admission.admit(1):
            assert not await admission.emptied(0.01)
            waiting = asyncio.create_task(admission.emptied(10))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert await waiting

    asyncio.run(scenario())
