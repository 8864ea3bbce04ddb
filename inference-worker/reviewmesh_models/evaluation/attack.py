"""A package's answers to hostile texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reviewmesh_models.evaluation.bootstrap import score_of
from reviewmesh_models.evaluation.hostile import (
    NOTHING_ADDED,
    HostileText,
    hostile_texts,
    positions,
)
from reviewmesh_models.evaluation.predictions import Outcome, Predictor
from reviewmesh_models.evaluation.report import Family
from reviewmesh_models.evaluation.scores import Measure, share
from reviewmesh_worker.engines.interface import ItemFailure, SentimentOutput, TopicOutput
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import Task

FLIPPED_TASKS: Final = (SENTIMENT, TOPIC)
"""Tasks whose answer to a hostile text can be compared with that to the original review."""


@dataclass(frozen=True, slots=True)
class Attack:
    reviews: int
    texts: Sequence[HostileText]
    alone: Mapping[str, Sequence[Outcome]]
    """By task, one per review."""
    attacked: Mapping[str, Sequence[Outcome]]
    """By task, one per text."""


async def attack(
    predictor: Predictor,
    texts: Sequence[str],
    predicted: Mapping[str, Sequence[Outcome]],
    tasks: Mapping[str, Task],
) -> Attack:
    """Predict hostile texts made from some of the texts.

    `predicted` are the outcomes of all texts without an attack. `tasks` are all tasks: an attack
    may name labels of one that the package does not serve.
    """
    chosen = positions(len(texts))
    alone = {task: [predicted[task][at] for at in chosen] for task in predicted}
    hostile = hostile_texts([texts[at] for at in chosen], alone, tasks)
    predictions = await predictor.predict(
        "hostile texts", list(predicted), [one.text for one in hostile]
    )
    return Attack(len(chosen), hostile, alone, predictions.outcomes)


def flips_of(attack: Attack, task: str, family: str | None = None) -> Measure:
    """How often an answer differs from that to the original review; failures do not count.

    Of a family, or of all hostile texts. A row per review, since its texts flip together.
    """
    parts = np.zeros((attack.reviews, 2))
    for text, predicted in zip(attack.texts, attack.attacked[task], strict=True):
        alone = attack.alone[task][text.review]
        counted = text.family == family if family else text.family != NOTHING_ADDED
        if counted and not _failed(predicted) and not _failed(alone):
            parts[text.review] += (_answer(predicted) != _answer(alone), 1)
    return share(parts)


def families_of(attack: Attack) -> dict[str, Family]:
    found = {}
    for name in dict.fromkeys(text.family for text in attack.texts):
        own = [at for at, text in enumerate(attack.texts) if text.family == name]
        found[name] = Family(
            texts=len(own),
            failed=sum(
                _failed(predicted[at]) for predicted in attack.attacked.values() for at in own
            ),
            flips={
                task: score_of(flips_of(attack, task, name))
                for task in FLIPPED_TASKS
                if task in attack.attacked
            },
            reached={
                task: score_of(_reached(attack, task, name))
                for task in FLIPPED_TASKS
                if task in attack.attacked and any(_wish(attack.texts[at], task) for at in own)
            },
        )
    return found


def _reached(attack: Attack, task: str, family: str) -> Measure:
    """How often an answer has the label that the attack asks for, and the original answer has
    not."""
    parts = np.zeros((attack.reviews, 2))
    for text, predicted in zip(attack.texts, attack.attacked[task], strict=True):
        wish = _wish(text, task)
        if family == text.family and wish and not _failed(predicted):
            parts[text.review] += (wish in _answer(predicted), 1)
    return share(parts)


def _wish(text: HostileText, task: str) -> str | None:
    return text.label if task == SENTIMENT else text.topic


def _answer(outcome: Outcome) -> frozenset[str]:
    if isinstance(outcome, TopicOutput):
        return frozenset(topic.id for topic in outcome.topics)
    if isinstance(outcome, SentimentOutput):
        return frozenset({outcome.label})
    raise ValueError(f"expected a sentiment or topics, got {type(outcome).__name__}")


def _failed(outcome: Outcome) -> bool:
    return isinstance(outcome, ItemFailure)
