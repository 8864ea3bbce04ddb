"""An engine for tests: answers at once, slowly, or fails on command.

It goes through the worker's own batching. A control file (JSON, read again when it changes) gives
`delay_ms`, `load_ms` for its start, `poison`: substrings whose texts make a whole batch raise,
`held`: substrings whose texts wait while it names them, `dead`: whether the engine has died,
`failing`: whether every text gets an error that may pass, `failing_after_s` or at once, `label`:
that of the names it finds, and `heard`: a file that every text is written to, as a line of JSON.
`SCRIPTED_MODEL_VERSION` in its environment is the version of its model, 1 by default; the scores of
its topics tell versions apart.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from reviewmesh_worker.engines.batching import Batcher
from reviewmesh_worker.engines.interface import (
    UNBOUND,
    Bounds,
    EngineDead,
    EngineLoad,
    Entity,
    ItemFailure,
    ItemResult,
    NerOutput,
    SentimentOutput,
    TaskDescription,
    TaskOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.engines.lanes import Lane

TASKS = ("ner", "topic", "sentiment")
MOODS = ("positive", "negative", "neutral", "mixed")
WORD = re.compile(r"\b[A-Z]\w+")


class Poisoned(RuntimeError):
    """What the scripted engine raises for a batch that holds a poisoned text."""


class ScriptedEngine:
    """Outputs depend on the text alone, so tests can tell what to expect."""

    def __init__(self, control: Path, tasks: Sequence[str] = TASKS) -> None:
        self._control = control
        version = os.environ.get("SCRIPTED_MODEL_VERSION", "1")
        self._topic_score = {"1": 0.8}.get(version, 0.9)
        self._tasks = {
            task: TaskDescription(task, MOODS, "scripted", "scripted", version, "0" * 64)
            for task in tasks
        }
        self._batcher: Batcher[str] | None = None

    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        return self._tasks

    async def start(self) -> None:
        load = self._script().get("load_ms", 0)
        assert isinstance(load, int)
        await asyncio.sleep(load / 1000)
        self._batcher = Batcher(self._run, max_cached=1)

    def _script(self) -> dict[str, object]:
        try:
            script: dict[str, object] = json.loads(self._control.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return script

    def _run(self, texts: list[str]) -> list[str]:
        script = self._script()
        for text in _named(script, "poison", texts):
            raise Poisoned(f"a text of {len(text)} characters holds poison")
        delay = script.get("delay_ms", 0)
        assert isinstance(delay, int)
        if delay:
            time.sleep(delay / 1000)
        return texts

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        assert self._batcher is not None
        self.check()
        script = self._script()
        if (heard := script.get("heard")) is not None:
            with open(str(heard), "a") as file:  # noqa: ASYNC230 - it is short, and whole lines
                file.writelines(json.dumps(text) + "\n" for text in texts)
        if script.get("failing"):
            await asyncio.sleep(float(str(script.get("failing_after_s", 0))))
            return [ItemResult(ItemFailure("UNAVAILABLE", "as scripted", retryable=True))] * len(
                texts
            )
        while _named(self._script(), "held", texts):  # noqa: ASYNC110 - a file wakes nobody
            await asyncio.sleep(0.01)
        label = str(script.get("label", "organization"))
        read = await asyncio.gather(*(self._batcher.submit(text, lane) for text in texts))
        return [
            ItemResult(
                text
                if isinstance(text, ItemFailure)
                else answer(task, text, label, self._topic_score)
            )
            for text in read
        ]

    def check(self) -> None:
        if self._script().get("dead"):
            raise EngineDead("as the script says")
        if self._batcher is not None and self._batcher.hangs:
            raise EngineDead("a batch does not return")

    def unavailable(self) -> str:
        return ""

    def load(self) -> EngineLoad:
        if self._batcher is None:
            return EngineLoad(0, 0, 0.0)
        return EngineLoad(self._batcher.running, self._batcher.waiting, 0.0)

    async def close(self) -> None:
        if self._batcher is not None:
            await self._batcher.close()


def _named(script: Mapping[str, object], entry: str, texts: Sequence[str]) -> list[str]:
    """The texts with a word that this entry of the script names."""
    words = script.get(entry, [])
    assert isinstance(words, list)
    return [text for text in texts if any(word in text for word in words)]


def answer(
    task: str, text: str, label: str = "organization", topic_score: float = 0.8
) -> TaskOutput:
    """What the scripted engine says of a text."""
    if task == "ner":
        return NerOutput(
            tuple(
                Entity(match.start(), match.end(), match.group(), label, 0.9)
                for match in WORD.finditer(text)
            )
        )
    if task == "topic":
        return TopicOutput((Topic("logistics-rides.speed", topic_score, "positive"),))
    mood = MOODS[len(text) % len(MOODS)]
    return SentimentOutput(mood, {label: float(label == mood) for label in MOODS})
