"""Answers that calls share."""

from __future__ import annotations

import asyncio

import pytest

from reviewmesh_worker.engines.interface import ItemFailure
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.sharing import Shared


class Asked:
    """Counts what is asked and ended; answers when it is let go."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.lanes: list[Lane] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()
        self.fail = False

    async def run(self, text: str, lane: Lane) -> str | ItemFailure:
        self.texts.append(text)
        self.lanes.append(lane)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        return ItemFailure("INTERNAL", "broken", retryable=True) if self.fail else text.upper()


def test_calls_that_overlap_share_one_run_and_later_ones_its_answer() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        calls = [asyncio.ensure_future(shared.infer("one")) for _ in range(3)]
        await asyncio.sleep(0)
        asked.go.set()
        assert await asyncio.gather(*calls) == ["ONE"] * 3
        assert await shared.infer("one") == "ONE"
        assert asked.texts == ["one"]

    asyncio.run(run())


def test_a_run_ends_when_the_last_of_its_callers_leaves() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        first, second = (asyncio.ensure_future(shared.infer("one")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert not asked.cancelled
        second.cancel()
        await asyncio.wait([second])
        await asyncio.sleep(0)
        assert asked.cancelled == ["one"]
        asked.go.set()
        assert await shared.infer("one") == "ONE"
        assert asked.texts == ["one", "one"]

    asyncio.run(run())


def test_failures_are_not_remembered() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        asked.go.set()
        asked.fail = True
        assert isinstance(await shared.infer("one"), ItemFailure)
        asked.fail = False
        assert await shared.infer("one") == "ONE"

    asyncio.run(run())


def test_what_a_run_raises_reaches_all_of_its_callers() -> None:
    async def run() -> None:
        async def broken(text: str, lane: Lane) -> str | ItemFailure:
            raise RuntimeError(text)

        shared: Shared[str] = Shared(broken)
        calls = [asyncio.ensure_future(shared.infer("one")) for _ in range(2)]
        for call in calls:
            with pytest.raises(RuntimeError, match="one"):
                await call

    asyncio.run(run())


def test_only_so_many_answers_are_remembered() -> None:
    async def run() -> None:
        asked = Asked()
        asked.go.set()
        shared = Shared(asked.run, max_cached=2)
        for text in ("one", "two", "three", "two", "one"):
            await shared.infer(text)
        assert asked.texts == ["one", "two", "three", "one"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("first", "second", "runs"),
    [
        (Lane.BACKFILL, Lane.BACKFILL, [Lane.BACKFILL]),
        (Lane.INTERACTIVE, Lane.BACKFILL, [Lane.INTERACTIVE]),
        # Nothing hurries what an engine has taken in: who is waited for asks anew.
        (Lane.BACKFILL, Lane.INTERACTIVE, [Lane.BACKFILL, Lane.INTERACTIVE]),
    ],
)
def test_an_interactive_call_waits_for_no_backfill(
    first: Lane, second: Lane, runs: list[Lane]
) -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        calls = [asyncio.ensure_future(shared.infer("one", lane)) for lane in (first, second)]
        await asyncio.sleep(0)
        asked.go.set()
        assert await asyncio.gather(*calls) == ["ONE"] * 2
        assert asked.lanes == runs
        for lane in Lane:
            assert await shared.infer("one", lane) == "ONE"
        assert asked.lanes == runs

    asyncio.run(run())


def test_each_lane_withdraws_its_own() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        backfill = asyncio.ensure_future(shared.infer("one", Lane.BACKFILL))
        await asyncio.sleep(0)
        interactive = asyncio.ensure_future(shared.infer("one", Lane.INTERACTIVE))
        await asyncio.sleep(0)
        backfill.cancel()
        await asyncio.wait([backfill])
        await asyncio.sleep(0)
        assert asked.cancelled == ["one"]
        asked.go.set()
        assert await interactive == "ONE"

    asyncio.run(run())
