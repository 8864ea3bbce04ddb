"""Finds texts that two packages, or one package on two engines, answer differently."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from reviewmesh_models.evaluation.predictions import Outcome, Predictions, Predictor, Step
from reviewmesh_models.evaluation.report import PackageName
from reviewmesh_models.evaluation.run import name_of
from reviewmesh_worker.engines.interface import (
    Engine,
    ItemFailure,
    SentimentOutput,
    TopicOutput,
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Disagreement(_Part):
    """A text that two packages answer differently, with the scores of their answers."""

    text: int
    """Its number, from 1."""
    ours: dict[str, float]
    theirs: dict[str, float]


class Compared(_Part):
    same: float
    """Share of the texts with the same sentiment, the same topics and polarities, or spans."""
    largest_gap: float
    """The largest difference of scores where both give the same answer."""
    disagreements: list[Disagreement]


class EngineComparison(_Part):
    ours: PackageName
    theirs: PackageName
    texts: int
    same: float
    """Share of the texts with the same answer to every task."""
    tasks: dict[str, Compared]


def compare_engines(
    ours: Engine, theirs: Engine, texts: Sequence[str], step: Step
) -> EngineComparison:
    """Runs one after the other, for the tasks that both answer; neither has started.

    Raises EngineLoadError, EngineDead, and ValueError where they have no task in common.
    """
    return asyncio.run(_compare(ours, theirs, texts, step))


async def _compare(
    ours: Engine, theirs: Engine, texts: Sequence[str], step: Step
) -> EngineComparison:
    both = [task for task in ours.tasks if task in theirs.tasks]
    if not both:
        raise ValueError(
            f"expected packages with a task in common, got one for {', '.join(ours.tasks)} and "
            f"one for {', '.join(theirs.tasks)}"
        )
    here = await _predict(ours, both, texts, step)
    there = await _predict(theirs, both, texts, step)
    tasks = {task: _compare_task(here.outcomes[task], there.outcomes[task]) for task in both}
    differing = {case.text for compared in tasks.values() for case in compared.disagreements}
    return EngineComparison(
        ours=name_of(ours),
        theirs=name_of(theirs),
        texts=len(texts),
        same=1 - len(differing) / max(len(texts), 1),
        tasks=tasks,
    )


async def _predict(
    engine: Engine, tasks: Sequence[str], texts: Sequence[str], step: Step
) -> Predictions:
    await engine.start()
    try:
        return await Predictor(engine, step).predict("reviews", tasks, texts)
    finally:
        await engine.close()


def _compare_task(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> Compared:
    disagreements = []
    gaps = [0.0]
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        here, there = _scored(one), _scored(other)
        gaps += [
            abs(here[predicted] - there[predicted]) for predicted in here.keys() & there.keys()
        ]
        if _answer(one) != _answer(other):
            disagreements.append(Disagreement(text=number, ours=here, theirs=there))
    return Compared(
        same=1 - len(disagreements) / max(len(ours), 1),
        largest_gap=max(gaps),
        disagreements=disagreements,
    )


def _answer(outcome: Outcome) -> frozenset[str]:
    return frozenset({outcome.label} if isinstance(outcome, SentimentOutput) else _scored(outcome))


def _scored(outcome: Outcome) -> dict[str, float]:
    """The score of each part of an answer; for a sentiment, of all labels."""
    if isinstance(outcome, ItemFailure):
        return {f"failed: {outcome.code}": 0.0}
    if isinstance(outcome, SentimentOutput):
        return dict(outcome.scores)
    if isinstance(outcome, TopicOutput):
        return {f"{topic.id} {topic.polarity}": topic.score for topic in outcome.topics}
    return {f"{name.label} {name.start}-{name.end}": name.score for name in outcome.entities}
