"""The batcher, driven by a scripted run function."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from reviewmesh_worker.engines import batching, lanes
from reviewmesh_worker.engines.batching import MAX_BATCH_CODE_POINTS, Batcher
from reviewmesh_worker.engines.interface import ItemFailure
from reviewmesh_worker.engines.lanes import Lane

_DEADLINE_S = 5.0


class ScriptedRun:
    """Upper-cases texts; holds batches back on command, fails on texts that say `bad`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, texts: list[str]) -> Sequence[str]:
        self.batches.append(texts)
        assert self.open.wait(_DEADLINE_S)
        if any("bad" in text for text in texts):
            raise ValueError("scripted failure")
        return [text.upper() for text in texts]

    @property
    def seen(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


def drive(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), _DEADLINE_S)

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is the thread's, not the loop's
        await asyncio.sleep(0.001)


def test_outcomes_are_those_of_the_own_text() -> None:
    async def scenario() -> None:
        batcher = Batcher(ScriptedRun(), max_batch=4)
        texts = [f"text {number}" for number in range(50)]
        outcomes = await asyncio.gather(*(batcher.submit(text) for text in texts))
        assert outcomes == [text.upper() for text in texts]
        await batcher.close()

    drive(scenario)


def test_concurrent_texts_share_batches_of_at_most_the_maximum() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        batcher = Batcher(run, max_batch=8)
        await asyncio.gather(*(batcher.submit(f"text {number}") for number in range(20)))
        assert [len(batch) for batch in run.batches] == [8, 8, 4]

    drive(scenario)


def test_a_text_in_line_running_or_remembered_is_run_once() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run)
        first = [asyncio.create_task(batcher.submit("same")) for _ in range(3)]
        await until(lambda: batcher.running == 1)
        first.append(asyncio.create_task(batcher.submit("same")))
        await asyncio.sleep(0)
        run.open.set()
        assert await asyncio.gather(*first) == ["SAME"] * 4
        assert await batcher.submit("same") == "SAME"
        assert run.seen == ["same"]

    drive(scenario)


def test_the_oldest_remembered_output_is_forgotten_first() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        batcher = Batcher(run, max_cached=2)
        for text in ("a", "b", "a", "c", "a", "b"):
            await batcher.submit(text)
        assert run.seen == ["a", "b", "c", "b"]

    drive(scenario)


@pytest.mark.parametrize("position", [0, 13, 31])
def test_a_bad_text_fails_alone(position: int) -> None:
    async def scenario() -> None:
        batcher = Batcher(ScriptedRun(), max_batch=32)
        texts = [f"text {number}" for number in range(32)]
        texts[position] = "bad"
        outcomes = await asyncio.gather(*(batcher.submit(text) for text in texts))
        failure = ItemFailure("INTERNAL", "ValueError: scripted failure", retryable=False)
        expected = [failure if text == "bad" else text.upper() for text in texts]
        assert outcomes == expected

    drive(scenario)


def test_a_failure_is_not_remembered() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        batcher = Batcher(run)
        assert isinstance(await batcher.submit("bad"), ItemFailure)
        await batcher.submit("bad")
        assert run.seen == ["bad", "bad"]

    drive(scenario)


def test_too_few_outputs_fail_and_never_shift_to_other_texts() -> None:
    async def scenario() -> None:
        batcher: Batcher[str] = Batcher(lambda texts: texts[1:])
        outcomes = await asyncio.gather(batcher.submit("a"), batcher.submit("b"))
        assert all(isinstance(outcome, ItemFailure) for outcome in outcomes)

    drive(scenario)


def test_cancelling_withdraws_a_text_that_nobody_else_waits_for() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run, max_batch=1)
        head = asyncio.create_task(batcher.submit("head"))
        await until(lambda: batcher.running == 1)
        lonely = asyncio.create_task(batcher.submit("lonely"))
        shared = [asyncio.create_task(batcher.submit("shared")) for _ in range(2)]
        await until(lambda: batcher.waiting == 2)
        lonely.cancel()
        shared[0].cancel()
        await until(lambda: batcher.waiting == 1)
        run.open.set()
        assert await shared[1] == "SHARED"
        await head
        assert run.seen == ["head", "shared"]

    drive(scenario)


def test_a_full_line_refuses_and_says_that_trying_again_helps() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run, max_batch=1, max_waiting=1)
        taken = [asyncio.create_task(batcher.submit("running"))]
        await until(lambda: batcher.running == 1)
        taken.append(asyncio.create_task(batcher.submit("waiting")))
        await until(lambda: batcher.waiting == 1)
        refused = await batcher.submit("one too many")
        assert isinstance(refused, ItemFailure)
        assert (refused.code, refused.retryable) == ("RESOURCE_EXHAUSTED", True)
        run.open.set()
        assert await asyncio.gather(*taken) == ["RUNNING", "WAITING"]

    drive(scenario)


def test_closing_ends_the_running_batch_and_fails_the_line_as_retryable() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run, max_batch=1)
        running = asyncio.create_task(batcher.submit("running"))
        await until(lambda: batcher.running == 1)
        waiting = asyncio.create_task(batcher.submit("waiting"))
        await until(lambda: batcher.waiting == 1)
        closing = asyncio.create_task(batcher.close())
        refused = await waiting
        run.open.set()
        await closing
        assert isinstance(refused, ItemFailure) and refused.retryable
        assert await running == "RUNNING"
        late = await batcher.submit("late")
        assert isinstance(late, ItemFailure) and late.code == "UNAVAILABLE"

    drive(scenario)


def test_long_texts_do_not_pile_up_in_one_batch() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        batcher = Batcher(run)
        long = [str(number) * MAX_BATCH_CODE_POINTS for number in range(3)]
        await asyncio.gather(*(batcher.submit(text) for text in long))
        assert [len(batch) for batch in run.batches] == [1, 1, 1]

    drive(scenario)


@pytest.mark.parametrize(
    ("head_start_s", "expected"),
    # One that has waited for longer than the head start keeps its place.
    [(3600.0, ["now", "soon", "later", "last"]), (0.0, ["later", "now", "last", "soon"])],
)
def test_interactive_texts_overtake_a_backfill_within_the_head_start(
    head_start_s: float, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "HEAD_START_S", head_start_s)

    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run, max_batch=1)
        calls = [asyncio.create_task(batcher.submit("head"))]
        await until(lambda: batcher.running == 1)
        for text, lane in (
            ("later", Lane.BACKFILL),
            ("now", Lane.INTERACTIVE),
            ("last", Lane.BACKFILL),
            ("soon", Lane.INTERACTIVE),
        ):
            calls.append(asyncio.create_task(batcher.submit(text, lane)))
            await until(lambda: batcher.waiting == len(calls) - 1)
        run.open.set()
        await asyncio.gather(*calls)
        assert run.seen == ["head", *expected]

    drive(scenario)


def test_a_batch_is_filled_up_from_its_own_lane_first() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run, max_batch=3)
        calls = [asyncio.create_task(batcher.submit("head"))]
        await until(lambda: batcher.running == 1)
        backfill = [f"backfill {number}" for number in range(3)]
        calls += [asyncio.create_task(batcher.submit(text, Lane.BACKFILL)) for text in backfill]
        # By their length alone the two would have others for company.
        interactive = ["as long as it: one", "and far, far longer than that: another"]
        calls += [asyncio.create_task(batcher.submit(text)) for text in interactive]
        await until(lambda: batcher.waiting == 5)
        run.open.set()
        await asyncio.gather(*calls)
        assert [sorted(batch) for batch in run.batches[1:]] == [
            sorted([*interactive, backfill[0]]),
            backfill[1:],
        ]

    drive(scenario)


def test_a_text_of_a_backfill_that_an_interactive_call_asks_for_is_hurried() -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run, max_batch=1)
        calls = [asyncio.create_task(batcher.submit("head"))]
        await until(lambda: batcher.running == 1)
        for text in ("one", "two"):
            calls.append(asyncio.create_task(batcher.submit(text, Lane.BACKFILL)))
        await until(lambda: batcher.waiting == 2)
        calls.append(asyncio.create_task(batcher.submit("two")))
        await asyncio.sleep(0)
        run.open.set()
        assert await asyncio.gather(*calls) == ["HEAD", "ONE", "TWO", "TWO"]
        assert run.seen == ["head", "two", "one"]

    drive(scenario)


def test_a_batch_that_never_returns_is_told_and_keeps_no_close_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        run = ScriptedRun()
        run.open.clear()
        batcher = Batcher(run)
        waiting = asyncio.create_task(batcher.submit("text"))
        await until(lambda: batcher.running == 1)
        assert not batcher.hangs
        monkeypatch.setattr(batching, "HANGS_AFTER_S", 0.0)
        await until(lambda: batcher.hangs)
        await batcher.close()
        run.open.set()
        assert await waiting == "TEXT"
        assert not batcher.hangs

    drive(scenario)
