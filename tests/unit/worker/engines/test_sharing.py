"""Answers that calls share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from reviewmesh_worker.engines.interface import ItemFailure, Usage
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.sharing import Shared

USAGE = Usage(
    inference_ms=9,
    prompt_tokens=100,
    cached_tokens=64,
    completion_tokens=7,
    cost_micros=31,
    provider_requests=2,
)
NOTHING = Usage(
    inference_ms=9,
    prompt_tokens=0,
    cached_tokens=0,
    completion_tokens=0,
    cost_micros=0,
    provider_requests=0,
)


@dataclass(frozen=True)
class Said:
    words: str
    usage: Usage = USAGE


async def ask(shared: Shared[Said], lane: Lane = Lane.INTERACTIVE) -> str:
    outcome = await shared.infer("one", lane)
    assert isinstance(outcome, Said)
    return outcome.words


class Asked:
    """Counts what is asked and ended; answers when it is let go."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.lanes: list[Lane] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()
        self.fail = False

    async def run(self, text: str, lane: Lane) -> Said | ItemFailure:
        self.texts.append(text)
        self.lanes.append(lane)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        if self.fail:
            return ItemFailure("INVALID_ANSWER", "broken", retryable=True, usage=USAGE)
        return Said(text.upper())


def test_calls_that_overlap_share_one_run_and_later_ones_its_answer() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        calls = [asyncio.ensure_future(ask(shared)) for _ in range(3)]
        await asyncio.sleep(0)
        asked.go.set()
        assert await asyncio.gather(*calls) == ["ONE"] * 3
        assert await ask(shared) == "ONE"
        assert asked.texts == ["one"]

    asyncio.run(run())


@pytest.mark.parametrize("fail", [False, True])
def test_what_a_run_took_is_counted_once(fail: bool) -> None:
    async def run() -> None:
        asked = Asked()
        asked.fail = fail
        shared = Shared(asked.run)
        calls = [asyncio.ensure_future(shared.infer("one")) for _ in range(3)]
        await asyncio.sleep(0)
        asked.go.set()
        together = [outcome.usage for outcome in await asyncio.gather(*calls)]
        assert together == [USAGE, NOTHING, NOTHING]
        assert (await shared.infer("one")).usage == (USAGE if fail else NOTHING)

    asyncio.run(run())


def test_a_caller_that_left_counts_nothing() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        first, second = (asyncio.ensure_future(shared.infer("one")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        asked.go.set()
        assert (await second).usage == USAGE

    asyncio.run(run())


def test_what_no_engine_measured_is_not_nothing() -> None:
    assert Usage(queue_ms=3).counted_elsewhere() == Usage(queue_ms=3)


def test_a_run_ends_when_the_last_of_its_callers_leaves() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        first, second = (asyncio.ensure_future(ask(shared)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert not asked.cancelled
        second.cancel()
        await asyncio.wait([second])
        await asyncio.sleep(0)
        assert asked.cancelled == ["one"]
        asked.go.set()
        assert await ask(shared) == "ONE"
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
        assert await ask(shared) == "ONE"

    asyncio.run(run())


def test_what_a_run_raises_reaches_all_of_its_callers() -> None:
    async def run() -> None:
        async def broken(text: str, lane: Lane) -> Said | ItemFailure:
            raise RuntimeError(text)

        shared: Shared[Said] = Shared(broken)
        calls = [asyncio.ensure_future(ask(shared)) for _ in range(2)]
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
        calls = [asyncio.ensure_future(ask(shared, lane)) for lane in (first, second)]
        await asyncio.sleep(0)
        asked.go.set()
        assert await asyncio.gather(*calls) == ["ONE"] * 2
        assert asked.lanes == runs
        for lane in Lane:
            assert await ask(shared, lane) == "ONE"
        assert asked.lanes == runs

    asyncio.run(run())


def test_each_lane_withdraws_its_own() -> None:
    async def run() -> None:
        asked = Asked()
        shared = Shared(asked.run)
        backfill = asyncio.ensure_future(ask(shared, Lane.BACKFILL))
        await asyncio.sleep(0)
        interactive = asyncio.ensure_future(ask(shared, Lane.INTERACTIVE))
        await asyncio.sleep(0)
        backfill.cancel()
        await asyncio.wait([backfill])
        await asyncio.sleep(0)
        assert asked.cancelled == ["one"]
        asked.go.set()
        assert await interactive == "ONE"

    asyncio.run(run())
