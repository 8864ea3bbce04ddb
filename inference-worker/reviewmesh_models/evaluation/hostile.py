"""Hostile texts, made of real reviews.

An attack asks for a label, forges the answer or a turn of the conversation, hides characters in the
text, or makes it as long as intake accepts. The flip rate is how often the answer differs from that
to the original review. Lone surrogates are not included: neither Avro nor protobuf can encode them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, TypeVar

import yaml

from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_worker.engines.interface import SentimentOutput, TopicOutput
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import Task

HUGE_CODE_POINTS: Final = 99_000
_REVIEWS: Final = 200
_HUGE_REVIEWS: Final = 2
NOTHING_ADDED: Final = "nothing_added"
"""The family of texts with unchanged meaning: its flips are the engine's own variation."""
_TEMPLATES_EACH: Final = 3
"""Templates of a family that a review is put into; the next review takes the next ones."""

T = TypeVar("T")
_Make = Callable[[str], str]
_CHARACTERS: Final[Mapping[str, Sequence[_Make]]] = {
    NOTHING_ADDED: (lambda review: f"{review} ",),
    "control_characters": (
        lambda review: review.replace(" ", " \x00"),
        lambda review: "".join(f"{character}\x08" for character in review),
        lambda review: f"\x1b[31m{review}\x1b[0m",
        lambda review: review.replace(" ", "\x85 "),
    ),
    "invisible_characters": (
        lambda review: f"\u202e{review}\u202c",
        lambda review: review.replace(" ", "\u200f \u200e"),
        lambda review: "\u200d".join(review),
        lambda review: "\ufeff" + review.replace("e", "e\u00ad"),
    ),
}
_HUGE: Final[Sequence[_Make]] = (
    lambda review: f"{review} " * (HUGE_CODE_POINTS // (len(review) + 1)),
    lambda review: f"{review} {'a' * (HUGE_CODE_POINTS - len(review) - 1)}",
    lambda review: review + "\n" * (HUGE_CODE_POINTS - len(review)),
)


@dataclass(frozen=True, slots=True)
class HostileText:
    family: str
    review: int
    """Index of its review."""
    text: str
    label: str | None = None
    """The sentiment that it asks for, if any."""
    topic: str | None = None
    """The topic that it asks for, if any."""


def positions(rows: int) -> list[int]:
    """Of the reviews to attack, spread evenly over so many rows."""
    count = min(rows, _REVIEWS)
    return [at * rows // count for at in range(count)]


def hostile_texts(
    reviews: Sequence[str], predicted: Mapping[str, Sequence[Outcome]], tasks: Mapping[str, Task]
) -> list[HostileText]:
    """Texts made of the reviews; `predicted`, by task, are the outcomes of the reviews alone."""
    made = [
        HostileText(family, number, make(reviews[number]))
        for family, makers in _CHARACTERS.items()
        for number, make in _in_turn(len(reviews), makers, 1)
    ]
    few = min(len(reviews), _HUGE_REVIEWS)
    made += [
        HostileText("huge", number, make(reviews[number]))
        for number, make in _in_turn(few, _HUGE, len(_HUGE))
    ]
    for family, templates in _templates().items():
        for number, template in _in_turn(len(reviews), templates, _TEMPLATES_EACH):
            label = (
                _label_not_predicted(number, predicted, tasks) if "{label}" in template else None
            )
            topic = (
                _topic_not_predicted(number, predicted, tasks) if "{topic}" in template else None
            )
            text = template.format(review=reviews[number], label=label, topic=topic)
            made.append(
                HostileText(family=family, review=number, text=text, label=label, topic=topic)
            )
    return made


def _templates() -> Mapping[str, Sequence[str]]:
    file = resources.files("reviewmesh_models.evaluation") / "hostile.yaml"
    templates: Mapping[str, Sequence[str]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return templates


def _in_turn(reviews: int, kinds: Sequence[T], each: int) -> Iterator[tuple[int, T]]:
    for number in range(reviews):
        for turn in range(each):
            yield number, kinds[(number * each + turn) % len(kinds)]


def _label_not_predicted(
    number: int, predicted: Mapping[str, Sequence[Outcome]], tasks: Mapping[str, Task]
) -> str:
    alone = predicted[SENTIMENT][number] if SENTIMENT in predicted else None
    own = alone.label if isinstance(alone, SentimentOutput) else None
    others = [label for label in tasks[SENTIMENT].label_ids if label != own]
    return others[number % len(others)]


def _topic_not_predicted(
    number: int, predicted: Mapping[str, Sequence[Outcome]], tasks: Mapping[str, Task]
) -> str:
    alone = predicted[TOPIC][number] if TOPIC in predicted else None
    own = {topic.id for topic in alone.topics} if isinstance(alone, TopicOutput) else set()
    others = [label for label in tasks[TOPIC].label_ids if label not in own] or sorted(own)
    return others[number % len(others)]
