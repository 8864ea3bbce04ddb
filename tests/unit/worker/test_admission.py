"""How many items a worker lets in, and what it tells those it does not."""

from __future__ import annotations

import asyncio

import pytest

from reviewmesh_worker.admission import LONGEST_HINT_MS, SHORTEST_HINT_MS, Admission, Full
from reviewmesh_worker.lanes import Lane


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


def test_the_hint_grows_with_what_is_in_the_way_and_with_slowness_within_its_bounds() -> None:
    admission = Admission(100)
    with admission.admit(100):
        assert hint(admission, 1) == SHORTEST_HINT_MS
        admission.measured(10, 10.0)
        short, long = hint(admission, 2), hint(admission, 20)
        assert SHORTEST_HINT_MS < short < long
        for _ in range(100):
            admission.measured(1, 60.0)
        assert hint(admission, 100) == LONGEST_HINT_MS


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
