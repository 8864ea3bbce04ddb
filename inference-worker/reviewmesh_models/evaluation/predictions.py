"""The predictions of an engine for many texts, requested as a worker requests them, and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_worker.engines.interface import Engine, ItemFailure, TaskOutput

IN_FLIGHT: Final = 512
"""Texts in the engine at once, each for all its tasks."""
_ATTEMPTS: Final = 8
_FIRST_PAUSE_S: Final = 0.05
"""Doubled after each attempt: a full engine has six seconds to make room."""

Outcome = TaskOutput | ItemFailure
OnAnswered = Callable[[int], None]
"""Called with the number of texts that were answered since the last call."""
Step = Callable[[str, int], OnAnswered]
"""Called with the name of the next step and its number of texts; returns an `OnAnswered`."""


@dataclass(frozen=True, slots=True)
class Predictions:
    outcomes: Mapping[str, Sequence[Outcome]]
    """By task, in the order of the texts."""
    finished_s: NDArray[np.float64]
    """Ascending: when each text had its last answer, in seconds from the start."""


class Predictor:
    """Sends texts to a started engine, for several tasks at a time."""

    def __init__(self, engine: Engine, step: Step) -> None:
        self._engine = engine
        self._step = step

    async def predict(self, what: str, tasks: Sequence[str], texts: Sequence[str]) -> Predictions:
        """All texts, `IN_FLIGHT` at a time. Raises EngineDead."""
        answered = self._step(what, len(texts))
        rows: list[list[Outcome]] = []
        finished: list[float] = []
        started = time.perf_counter()

        async def one(text: str) -> list[Outcome]:
            outcomes = await self._predict_one(tasks, text)
            finished.append(time.perf_counter() - started)
            answered(1)
            return outcomes

        for at in range(0, len(texts), IN_FLIGHT):
            rows += await asyncio.gather(*(one(text) for text in texts[at : at + IN_FLIGHT]))
        by_task = {task: [row[place] for row in rows] for place, task in enumerate(tasks)}
        return Predictions(by_task, np.array(finished))

    async def time(self, what: str, tasks: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Seconds for each text, with no other text in the engine. Raises EngineDead."""
        answered = self._step(what, len(texts))
        took = []
        for text in texts:
            started = time.perf_counter()
            await self._predict_one(tasks, text)
            took.append(time.perf_counter() - started)
            answered(1)
        return took

    async def _predict_one(self, tasks: Sequence[str], text: str) -> list[Outcome]:
        return await asyncio.gather(*(self._predict_task(task, text) for task in tasks))

    async def _predict_task(self, task: str, text: str) -> Outcome:
        pause = _FIRST_PAUSE_S
        for _ in range(_ATTEMPTS - 1):
            (answer,) = await self._engine.infer(task, [text])
            if not isinstance(answer.outcome, ItemFailure) or not answer.outcome.retryable:
                return answer.outcome
            await asyncio.sleep(pause)
            pause *= 2
        (answer,) = await self._engine.infer(task, [text])
        return answer.outcome
