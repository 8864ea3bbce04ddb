"""Interactive calls and a backfill in one vLLM that has more to do than it runs at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.interface import Engine
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm.chat import VllmChatEngine
from reviewmesh_worker.engines.vllm.encoder import VllmEncoderEngine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import TOPIC
from reviewmesh_worker.tasks.definition import load_tasks

BACKFILL = 60
AT_ONCE = 2


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """What stays of a closed engine stays with every swap, and complains at the process's end."""
    yield
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one).__name__ == "AsyncLLM"]


def test_an_interactive_call_overtakes_a_backfill_of_a_chat_model(tiny_gemma: Path) -> None:
    assert left_when_answered(chat(tiny_gemma, "priority")) > BACKFILL / 2


def test_in_order_of_arrival_it_waits_for_the_backfill(tiny_gemma: Path) -> None:
    assert left_when_answered(chat(tiny_gemma, "fcfs")) < BACKFILL / 2


def test_an_interactive_call_overtakes_a_backfill_of_the_encoder() -> None:
    settings = VllmSettings(max_num_seqs=AT_ONCE)
    engine = VllmEncoderEngine(Package.open(BUNDLED_MODEL), load_tasks(), settings)
    assert left_when_answered(engine) > BACKFILL / 2


def chat(folder: Path, policy: Literal["fcfs", "priority"]) -> Engine:
    tasks = {TOPIC: load_tasks()[TOPIC]}
    settings = VllmSettings(max_num_seqs=AT_ONCE, scheduling_policy=policy)
    return VllmChatEngine(Package.open(folder), tasks, settings)


def left_when_answered(engine: Engine) -> int:
    """How many texts of a backfill had no answer yet when an interactive one had its own."""

    async def scenario() -> int:
        await engine.start()
        try:
            texts = [f"Text number {number} of a backfill. " * 4 for number in range(BACKFILL)]
            backfill = [
                asyncio.ensure_future(engine.infer(TOPIC, [text], Lane.BACKFILL)) for text in texts
            ]
            # All of it is in line once the first is answered.
            await asyncio.wait(backfill, return_when=asyncio.FIRST_COMPLETED)
            await engine.infer(TOPIC, ["Somebody waits for this one."])
            left = sum(not one.done() for one in backfill)
            await asyncio.gather(*backfill)
            return left
        finally:
            await engine.close()

    return asyncio.run(scenario())
