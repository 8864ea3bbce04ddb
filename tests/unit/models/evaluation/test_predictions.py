"""What an engine is asked, also when it is full or fails on some texts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from reviewmesh_models.evaluation.measures import measures_of
from reviewmesh_models.evaluation.predictions import Predictions, Predictor
from reviewmesh_models.evaluation.rows import DevRows
from reviewmesh_worker.engines.batching import Batcher
from reviewmesh_worker.engines.interface import EngineDead, ItemFailure
from reviewmesh_worker.tasks.definition import load_tasks
from tests.scripted_engine import ScriptedEngine

ASKED = ("sentiment", "topic")


class SmallQueue(ScriptedEngine):
    """Refuses for now what comes while two texts are in line."""

    async def start(self) -> None:
        self._batcher = Batcher(self._run, max_batch=2, max_waiting=2, max_cached=1)


def ask(engine: ScriptedEngine, texts: list[str]) -> tuple[Predictions, list[tuple[str, int]]]:
    told: list[tuple[str, int]] = []

    async def run() -> Predictions:
        await engine.start()
        predictor = Predictor(engine, lambda what, count: lambda more: told.append((what, more)))
        try:
            return await predictor.predict("texts", ASKED, texts)
        finally:
            await engine.close()

    return asyncio.run(run()), told


def test_an_engine_that_is_full_is_asked_again(tmp_path: Path) -> None:
    texts = [f"Review {number}" for number in range(12)]
    asked, told = ask(SmallQueue(tmp_path / "script.json"), texts)
    for task in ASKED:
        assert len(asked.outcomes[task]) == 12
        assert not any(isinstance(outcome, ItemFailure) for outcome in asked.outcomes[task])
    assert told == [("texts", 1)] * 12
    assert len(asked.finished_s) == 12
    assert sorted(asked.finished_s) == asked.finished_s.tolist()


def test_a_text_that_fails_is_no_answer_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(json.dumps({"poison": ["bad"]}))
    texts = ["Fine", "bad", "Fine too", "Good"]
    asked, _ = ask(ScriptedEngine(tmp_path / "script.json"), texts)
    failed = asked.outcomes["sentiment"][1]
    assert isinstance(failed, ItemFailure) and not failed.retryable
    tasks = {name: task for name, task in load_tasks().items() if name in ASKED}
    rows = DevRows([{"text": text, "sentiment": "mixed", "topics": []} for text in texts], [], {})
    measures = measures_of(rows, asked.outcomes, tasks)
    assert measures["sentiment.failed"].value == measures["topic.failed"].value == 0.25
    assert measures["sentiment.accuracy"].value <= 0.75
    assert measures["sentiment.calibration_error"].parts[1].sum() == 0


def test_a_dead_engine_ends_it(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(json.dumps({"dead": True}))
    with pytest.raises(EngineDead):
        ask(ScriptedEngine(tmp_path / "script.json"), ["Fine"])
