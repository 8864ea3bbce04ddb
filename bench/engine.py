"""`python -m bench.engine instant|lognormal`: the worker's server with an engine of known speed.

`instant` answers at once, so that what is measured is the mesh. `lognormal` takes as long as a
large model may: each text draws its own time, median 50 ms, one in a hundred over 2 s. What it
answers is what the tests' scripted engine answers.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections.abc import Mapping, Sequence

from reviewmesh_worker.engines.interface import (
    UNBOUND,
    Bounds,
    EngineLoad,
    ItemResult,
    TaskDescription,
)
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.serving.settings import Settings
from tests.scripted_engine import MOODS, TASKS, answer
from tests.scripted_worker import serve_engine

MEDIAN_S = 0.05
P99_S = 2.0
Z_OF_P99 = 2.3263
LONGEST_S = 30.0
CAPACITY = 256
# What waits for a place in the worker, so that the engine is never idle for want of a call.
QUEUE = 256
SIGMA = math.log(P99_S / MEDIAN_S) / Z_OF_P99
ENGINES = ("instant", "lognormal")


class TimedEngine:
    """Runs so many texts at once, whatever calls they came with; others wait for a place."""

    def __init__(self, slow: bool) -> None:
        self._slow = slow
        self._places = asyncio.Semaphore(CAPACITY)
        self._held = 0
        self._running = 0
        name = "lognormal" if slow else "instant"
        self._tasks = {
            task: TaskDescription(task, MOODS, "scripted", name, "1", "0" * 64) for task in TASKS
        }

    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        return self._tasks

    async def start(self) -> None:
        """Nothing to load."""

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        if not self._slow:
            return [ItemResult(answer(task, text)) for text in texts]
        self._held += len(texts)
        try:
            return await asyncio.gather(*(self._infer_slowly(task, text) for text in texts))
        finally:
            self._held -= len(texts)

    async def _infer_slowly(self, task: str, text: str) -> ItemResult:
        async with self._places:
            self._running += 1
            try:
                await asyncio.sleep(draw_s())
            finally:
                self._running -= 1
        return ItemResult(answer(task, text))

    def check(self) -> None:
        """It cannot die."""

    def unavailable(self) -> str:
        return ""

    def load(self) -> EngineLoad:
        return EngineLoad(self._running, self._held - self._running, 0.0)

    async def close(self) -> None:
        """Nothing is held."""


def draw_s() -> float:
    """Seconds for one text; the one in 35,000 that would take longest is cut short."""
    return min(random.lognormvariate(math.log(MEDIAN_S), SIGMA), LONGEST_S)


if __name__ == "__main__":
    if sys.argv[1:2] not in ([name] for name in ENGINES):
        sys.exit(f"expected one of {ENGINES}, got {sys.argv[1:]}")
    settings = Settings()
    settings.worker.max_in_flight = CAPACITY + QUEUE
    serve_engine(TimedEngine(slow=sys.argv[1] == "lognormal"), settings)
