"""Labelled rows of the tests' own: simple sentences whose words decide their labels."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from reviewmesh_models.training.rows import is_held_out
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import load_tasks

Row = dict[str, Any]

_TOPICS = {
    "account-management.account-access": "logging in",
    "company-brand.competitor": "the rival shop",
    "logistics-rides.speed": "delivery",
    "online-experience.app-website": "the app",
    "staff-support.attitude-of-staff": "the driver",
    "value.price-value-for-money": "the price",
}
_MOODS = {
    "positive": ("great", "lovely", "perfect", "superb"),
    "negative": ("awful", "broken", "terrible", "useless"),
    "neutral": ("usual", "average", "ordinary", "unchanged"),
}
_NAMES = {
    "person": ("Maria", "Paul", "Anna", "Omar"),
    "location": ("Lisbon", "Berlin", "Paris", "Oslo"),
    "organization": ("Acme", "Globex", "Initech", "Umbra"),
}
_FRAMES = (
    "I spoke with {person} about it.",
    "We met {person} in {location} last week.",
    "{organization} moved to {location}.",
    "{person} works for {organization} now.",
    "Nothing to report today.",
)
SPOKEN_OF = tuple(_TOPICS)
_TASKS = load_tasks()


def review(random_: random.Random, number: int) -> Row:
    chosen = random_.sample(sorted(_TOPICS), random_.choice((1, 1, 2)))
    moods = [random_.choice(("positive", "positive", "negative", "neutral")) for _ in chosen]
    clauses = [
        f"{_TOPICS[topic]} was {random_.choice(_MOODS[mood])}"
        for topic, mood in zip(chosen, moods, strict=True)
    ]
    # A number makes each text its own, so that none stands in two files.
    text = f"Order {number}: {' and '.join(clauses)}."
    return {
        "text": text,
        "topics": [{"topic": t, "polarity": m} for t, m in zip(chosen, moods, strict=True)],
        "sentiment": _overall(moods),
    }


def _overall(moods: list[str]) -> str:
    if {"positive", "negative"} <= set(moods):
        return "mixed"
    judged = [mood for mood in moods if mood != "neutral"]
    return judged[0] if judged and len(judged) == len(moods) else "neutral"


def named(random_: random.Random, number: int) -> Row:
    text = f"Note {number}: "
    entities = []
    for part in random_.choice(_FRAMES).replace("{", "\0{").replace("}", "}\0").split("\0"):
        if part.startswith("{"):
            label = part[1:-1]
            name = random_.choice(_NAMES[label])
            entities.append(
                {"start": len(text), "end": len(text) + len(name), "label": label, "text": name}
            )
            part = name
        text += part
    annotated = list(_TASKS[NER].label_ids)
    return {"text": text, "entities": entities, "labels_annotated": annotated, "source": "made"}


def rows_of(task: str, count: int, seed: int) -> list[Row]:
    random_ = random.Random(seed)
    make = named if task == NER else review
    return [make(random_, seed * 1_000_000 + index) for index in range(count)]


def of_the_rest() -> dict[str, list[Row]]:
    """By kind of rows, one to learn from for each label that the others never have."""
    reviews = [
        {
            "text": _learned(f"Once only: {topic}"),
            "topics": [{"topic": topic, "polarity": "positive"}],
            "sentiment": "positive",
        }
        for topic in _TASKS[TOPIC].label_ids
        if topic not in _TOPICS
    ]
    entities = []
    for label in _TASKS[NER].label_ids:
        if label not in _NAMES:
            text = _learned(f"{label} by name")
            spoken = {"start": 0, "end": len(label), "label": label, "text": label}
            entities.append({**named(random.Random(0), 0), "text": text, "entities": [spoken]})
    return {"reviews": reviews, "ner": entities}


def _learned(text: str) -> str:
    while is_held_out(text):
        text += "."
    return text


def write_data(folder: Path, reviews: int, entities: int) -> Path:
    """A data folder, with as many training rows as given and a quarter of that to score on."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, task, count, seed in (
        ("reviews_train", SENTIMENT, reviews, 1),
        ("reviews_dev", TOPIC, reviews // 4, 2),
        ("ner_train", NER, entities, 3),
        ("ner_dev", NER, entities // 4, 4),
    ):
        rest = of_the_rest()[file.split("_")[0]] if file.endswith("train") else []
        rows = [*rows_of(task, count - len(rest), seed), *rest]
        lines = [json.dumps(row) for row in rows]
        (folder / f"{file}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
