"""Pauses, places and rates."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.openai.failures import retry_after_s
from reviewmesh_worker.engines.openai.limits import Places, Rate

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0.0),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(st.text(max_size=60))
def test_any_retry_after_is_read(header: str) -> None:
    seconds = retry_after_s(header, NOW)
    assert seconds is None or seconds >= 0


def test_who_waits_for_a_place_is_served_before_a_backfill() -> None:
    async def run() -> None:
        places = Places(1)
        served: list[str] = []

        async def work(name: str, lane: Lane) -> None:
            async with places.place(lane):
                served.append(name)
                await asyncio.sleep(0)

        async with places.place(Lane.INTERACTIVE):
            tasks = [
                asyncio.ensure_future(work(name, lane))
                for name, lane in (
                    ("backfill", Lane.BACKFILL),
                    ("first", Lane.INTERACTIVE),
                    ("second", Lane.INTERACTIVE),
                )
            ]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert served == ["first", "second", "backfill"]
        assert places.taken == 0

    asyncio.run(run())


@given(
    places=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from(("come", "go", "leave")), st.integers(0, 9))),
)
def test_places_are_never_lost_nor_given_twice(places: int, steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        gate = Places(places)
        inside = 0
        most = 0
        guests: list[tuple[asyncio.Task[None], asyncio.Event]] = []

        async def stay(leave: asyncio.Event, lane: Lane) -> None:
            nonlocal inside, most
            async with gate.place(lane):
                inside += 1
                most = max(most, inside)
                try:
                    await leave.wait()
                finally:
                    inside -= 1

        for what, number in steps:
            if what == "come":
                event = asyncio.Event()
                lane = Lane.BACKFILL if number % 2 else Lane.INTERACTIVE
                guests.append((asyncio.create_task(stay(event, lane)), event))
            elif guests:
                task, event = guests[number % len(guests)]
                if what == "go":
                    event.set()
                else:
                    task.cancel()
            if number % 3:
                await asyncio.sleep(0)
        assert most <= places
        for _, event in guests:
            event.set()
        await asyncio.gather(*(task for task, _ in guests), return_exceptions=True)
        assert (inside, gate.taken, most <= places) == (0, 0, True)

    asyncio.run(run())


def test_requests_beyond_the_rate_wait() -> None:
    async def run() -> None:
        rate = Rate(requests=2, tokens=None)
        await rate.turn(10)
        await rate.turn(10)
        third = asyncio.ensure_future(rate.turn(10))
        done, _ = await asyncio.wait([third], timeout=0.2)
        assert not done
        third.cancel()

    asyncio.run(run())


def test_a_prompt_of_more_than_a_minutes_tokens_has_its_turn_once() -> None:
    async def run() -> None:
        rate = Rate(requests=None, tokens=100)
        await rate.turn(1_000_000)
        second = asyncio.ensure_future(rate.turn(3))
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
        second.cancel()

    asyncio.run(run())


def test_a_rate_below_one_a_minute_is_one_in_so_many_minutes() -> None:
    async def run() -> None:
        rate = Rate(requests=0.5, tokens=None)
        await rate.turn(1)
        second = asyncio.ensure_future(rate.turn(1))
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
        second.cancel()

    asyncio.run(run())
