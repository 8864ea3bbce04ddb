"""Drives the serving engine over labelled rows and gathers its scores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from reviewmesh_worker.engines.interface import (
    ItemFailure,
    NerOutput,
    SentimentOutput,
    TopicOutput,
)
from reviewmesh_worker.engines.onnx.engine import OnnxEngine
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.evaluation.rows import Row, parse_rows, read_rows
from reviewmesh_worker.evaluation.scores import (
    Counts,
    accuracy,
    calibration_error,
    entity_counts,
    label_counts,
    macro_f1,
    topic_counts,
    total,
)
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC

REVIEWS_FILE: Final = "reviews_dev.jsonl"
ENTITIES_FILE: Final = "ner_dev.jsonl"
_AT_ONCE: Final = 512
_THREADS: Final = 2

Output = TypeVar("Output", NerOutput, TopicOutput, SentimentOutput)
Scores = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DevRows:
    reviews: list[Row]
    entities: list[Row]


def read_dev_rows(data: Path) -> DevRows:
    return DevRows(read_rows(data / REVIEWS_FILE), read_rows(data / ENTITIES_FILE))


def language_rows() -> list[Row]:
    """Short reviews in other languages, written for this project."""
    file = resources.files("reviewmesh_worker.evaluation") / "languages.jsonl"
    return parse_rows(file.read_text(encoding="utf-8"))


def evaluate(folder: Path, dev: DevRows) -> Scores:
    """All scores of the model in a folder, by the engine that serves it."""
    return asyncio.run(_evaluate(folder, dev))


async def _evaluate(folder: Path, dev: DevRows) -> Scores:
    engine = OnnxEngine(folder)
    await engine.start()
    try:
        texts = [row["text"] for row in dev.reviews]
        sentiments = await _infer(engine, SENTIMENT, texts, SentimentOutput)
        topics = await _infer(engine, TOPIC, texts, TopicOutput)
        named = [row["text"] for row in dev.entities]
        entities = await _infer(engine, NER, named, NerOutput)
        foreign = language_rows()
        abroad = await _infer(engine, SENTIMENT, [row["text"] for row in foreign], SentimentOutput)
    finally:
        await engine.close()
    about = engine.tasks[SENTIMENT]
    return {
        "model": {"version": about.model_version, "digest": about.model_digest},
        "rows": {"reviews": len(dev.reviews), "entities": len(dev.entities)},
        "sentiment": _sentiment_scores(dev.reviews, sentiments, about.labels),
        "topics": _topic_scores(dev.reviews, topics, engine.tasks[TOPIC].labels),
        "polarity": _polarity_scores(folder, dev.reviews),
        "entities": _entity_scores(dev.entities, entities),
        "languages": _language_scores(foreign, abroad),
    }


async def _infer(
    engine: OnnxEngine, task: str, texts: Sequence[str], kind: type[Output]
) -> list[Output]:
    outputs: list[Output] = []
    for at in range(0, len(texts), _AT_ONCE):
        for answer in await engine.infer(task, texts[at : at + _AT_ONCE]):
            outcome = answer.outcome
            if isinstance(outcome, ItemFailure) or not isinstance(outcome, kind):
                raise RuntimeError(f"expected an answer of task {task}, got {outcome}")
            outputs.append(outcome)
    return outputs


def _sentiment_scores(
    rows: Sequence[Row], outputs: Sequence[SentimentOutput], labels: Sequence[str]
) -> Scores:
    gold = [row["sentiment"] for row in rows]
    said = [output.label for output in outputs]
    counts = label_counts(gold, said, labels)
    return {
        "accuracy": accuracy(gold, said),
        "macro_f1": macro_f1(counts),
        "expected_calibration_error": calibration_error(gold, outputs),
        "labels": {label: _as_scores(count) for label, count in counts.items()},
    }


def _topic_scores(
    rows: Sequence[Row], outputs: Sequence[TopicOutput], labels: Sequence[str]
) -> Scores:
    counts = topic_counts(rows, outputs)
    overall = total(counts.values())
    return {
        "micro_f1": overall.f1,
        "precision": overall.precision,
        "recall": overall.recall,
        "labels": {topic: _as_scores(counts.get(topic, Counts())) for topic in labels},
    }


def _polarity_scores(folder: Path, rows: Sequence[Row]) -> Scores:
    """On gold topics, whether or not the model finds the topic: it has an opinion of each."""
    reader = OnnxReader(folder, _THREADS)
    labels = reader.labels
    gold: list[str] = []
    said: list[str] = []
    for at in range(0, len(rows), _AT_ONCE):
        some = rows[at : at + _AT_ONCE]
        logits = reader.logits([reader.encode(row["text"]) for row in some])
        for row, text in zip(some, logits, strict=True):
            surest = text.topics.argmax(0)
            for topic in row["topics"]:
                index = labels.topics.index(topic["topic"])
                gold.append(topic["polarity"])
                said.append(labels.polarities[int(text.polarities[surest[index], index].argmax())])
    counts = label_counts(gold, said, labels.polarities)
    return {"accuracy_on_gold_topics": accuracy(gold, said), "macro_f1": macro_f1(counts)}


def _entity_scores(rows: Sequence[Row], outputs: Sequence[NerOutput]) -> Scores:
    counts = entity_counts(rows, outputs)
    overall = total(counts.values())
    labels = sorted({label for _, label in counts})
    sources = sorted({source for source, _ in counts})
    return {
        "span_f1": overall.f1,
        "precision": overall.precision,
        "recall": overall.recall,
        "labels": {
            label: _as_scores(total(c for (_, own), c in counts.items() if own == label))
            for label in labels
        },
        "sources": {
            source: _as_scores(total(c for (own, _), c in counts.items() if own == source))
            for source in sources
        },
    }


def _language_scores(rows: Sequence[Row], outputs: Sequence[SentimentOutput]) -> Scores:
    right: dict[str, list[bool]] = {}
    for row, output in zip(rows, outputs, strict=True):
        right.setdefault(row["language"], []).append(output.label == row["sentiment"])
    return {
        language: {"sentiment_accuracy": sum(hits) / len(hits), "rows": len(hits)}
        for language, hits in sorted(right.items())
    }


def _as_scores(counts: Counts) -> Scores:
    return {
        "f1": counts.f1,
        "precision": counts.precision,
        "recall": counts.recall,
        "gold": counts.right + counts.missed,
        "said": counts.right + counts.wrong,
    }
