"""Teachers that err as often as they are told to, and how good their consensus is.

`python -m tests.simulated_teachers` prints the table of docs/labelling.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.labelling.consensus import LEAST_SURE, consensus_of
from reviewmesh_models.labelling.units import Answers, units_of
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import Task, load_tasks

Words = NDArray[np.str_]

SEEDS = range(20)
REVIEWS = 500
SKILLS = (0.85, 0.80, 0.75)
SHARES = {"positive": 0.5, "negative": 0.35, "neutral": 0.08, "mixed": 0.07}
PRESENT = 0.15
"""How often a topic is spoken of."""


@dataclass(frozen=True)
class Disputed:
    """Of units on which the teachers differ: how many, and shares that are right."""

    units: int
    right: float
    sure: float
    """Share of them that is sure enough for training."""
    right_where_sure: float


@dataclass(frozen=True)
class Outcome:
    """Shares of units that are right."""

    best: float
    """Of the best of the teachers, which nobody knows beforehand."""
    vote: float
    consensus: float


def sentiments(seed: int, skills: Sequence[float] = SKILLS, copied: float = 0.0) -> Outcome:
    """One label per review. With `copied`, the second teacher says so often what the third says."""
    task = load_tasks()[SENTIMENT]
    generator = np.random.default_rng(seed)
    labels = list(task.label_ids)
    truth = generator.choice(labels, REVIEWS, p=[SHARES[label] for label in labels])
    said = _said(generator, truth, labels, skills)
    _copy(generator, said, copied)
    answers = [[{"sentiment": str(label)} for label in teacher] for teacher in said]
    return _outcome(task, answers, truth, said)


def disputed(skills: Sequence[float]) -> Disputed:
    """Of all seeds together, one label per review."""
    task = load_tasks()[SENTIMENT]
    labels = list(task.label_ids)
    right: list[bool] = []
    sure: list[bool] = []
    for seed in SEEDS:
        generator = np.random.default_rng(seed)
        truth = generator.choice(labels, REVIEWS, p=[SHARES[label] for label in labels])
        said = _said(generator, truth, labels, skills)
        answers = [[{"sentiment": str(label)} for label in teacher] for teacher in said]
        consensus = consensus_of(task, units_of(task, answers))
        for unit in consensus.disputed:
            right.append(consensus.decided[unit] == truth[unit])
            sure.append(bool(consensus.sure[unit] >= LEAST_SURE))
    both = np.array(right)[np.array(sure)]
    return Disputed(len(right), float(np.mean(right)), float(np.mean(sure)), float(both.mean()))


def topics(seed: int, skills: Sequence[float] = SKILLS) -> Outcome:
    """Every topic of every review: mostly absent, so that most units are `none`."""
    task = load_tasks()[TOPIC]
    generator = np.random.default_rng(seed)
    labels = ["positive", "negative", "neutral", "none"]
    shares = [PRESENT / 2, PRESENT / 3, PRESENT / 6, 1 - PRESENT]
    truth = generator.choice(labels, REVIEWS * len(task.labels), p=shares)
    said = _said(generator, truth, labels, skills)
    answers = [
        [
            {
                "topics": [
                    {"topic": topic, "polarity": str(label)}
                    for topic, label in zip(task.label_ids, row, strict=True)
                    if label != "none"
                ]
            }
            for row in teacher.reshape(REVIEWS, -1)
        ]
        for teacher in said
    ]
    return _outcome(task, answers, truth, said)


def _said(
    generator: np.random.Generator, truth: Words, labels: list[str], skills: Sequence[float]
) -> list[Words]:
    return [
        np.where(generator.random(len(truth)) < skill, truth, generator.choice(labels, len(truth)))
        for skill in skills
    ]


def _copy(generator: np.random.Generator, said: list[Words], copied: float) -> None:
    if copied:
        said[1] = np.where(generator.random(len(said[1])) < copied, said[2], said[1])


def _outcome(
    task: Task, answers: Sequence[Answers], truth: Words, said: Sequence[Words]
) -> Outcome:
    units = units_of(task, answers)
    decided = np.array(consensus_of(task, units).decided)
    counts = (units.said[:, :, None] == np.arange(len(units.labels))).sum(1)
    vote = np.array(units.labels)[counts.argmax(1)]
    return Outcome(
        best=max(float((teacher == truth).mean()) for teacher in said),
        vote=float((vote == truth).mean()),
        consensus=float((decided == truth).mean()),
    )


def _line(what: str, outcomes: Sequence[Outcome]) -> str:
    best, vote, consensus = (
        float(np.mean([getattr(one, name) for one in outcomes]))
        for name in ("best", "vote", "consensus")
    )
    better = sum(one.consensus > one.best for one in outcomes)
    return f"| {what} | {best:.3f} | {vote:.3f} | {consensus:.3f} | {better} of {len(outcomes)} |"


if __name__ == "__main__":
    print("| teachers | best of them | vote | consensus | consensus better than the best |")
    print("| --- | --- | --- | --- | --- |")
    print(_line("sentiment, independent", [sentiments(seed) for seed in SEEDS]))
    print(_line("topics, independent", [topics(seed) for seed in SEEDS]))
    for copied in (0.25, 0.5, 0.75, 1.0):
        outcomes = [sentiments(seed, copied=copied) for seed in SEEDS]
        print(_line(f"sentiment, {copied:.0%} copied from the third", outcomes))
    outcomes = [sentiments(seed, (0.95, 0.7, 0.7)) for seed in SEEDS]
    print(_line("sentiment, one good and two poor", outcomes))
    print("\n| teachers | disputed units | right | sure | right where sure |")
    print("| --- | --- | --- | --- | --- |")
    for skills in ((0.85, 0.80), (0.95, 0.60), SKILLS):
        one = disputed(skills)
        shares = f"{one.right:.3f} | {one.sure:.3f} | {one.right_where_sure:.3f}"
        print(f"| {', '.join(f'{skill:.0%}' for skill in skills)} | {one.units:,} | {shares} |")
