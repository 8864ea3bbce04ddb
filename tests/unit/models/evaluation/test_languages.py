"""Scores of each language, and of all of them together."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from reviewmesh_models.evaluation.languages import (
    entity_measures,
    of_all_languages,
    translated_measures,
)
from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_models.evaluation.rows import TRANSLATED_FILE, RowsError, read_dev_rows
from reviewmesh_worker.engines.interface import (
    Entity,
    ItemFailure,
    NerOutput,
    SentimentOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()
SPEED, PRICE = "logistics-rides.speed", "value.price-value-for-money"


def _row(row: str, language: str, sentiment: str) -> dict[str, str]:
    return {"row": row, "language": language, "sentiment": sentiment, "text": "a"}


def _said(label: str, probability: float = 1.0) -> SentimentOutput:
    return SentimentOutput(label, {label: probability})


def _topics(*names: str) -> TopicOutput:
    return TopicOutput(tuple(Topic(name, 0.9, "positive") for name in names))


def test_polarity_is_of_the_rows_that_have_one_and_the_worst_language_counts() -> None:
    rows = [
        _row(at, language, sentiment)
        for language in ("en", "de", "sv")
        for at, sentiment in (("1", "positive"), ("2", "negative"), ("3", "neutral"))
    ]
    english = [_said("negative"), _said("negative"), _said("mixed")]
    german = [_said("positive"), _said("negative"), _said("negative")]
    swedish = [_said("mixed"), _said("negative"), _said("positive")]
    outcomes = {SENTIMENT: [*english, *german, *swedish]}
    together = of_all_languages(translated_measures(rows, outcomes, TASKS), rows)
    # German is right; the Swedish "mixed" misses the positive row. English is not among them.
    assert together["sentiment.languages_mean_polarity_macro_f1"].value == pytest.approx(0.75)
    assert together["sentiment.languages_worst_polarity_macro_f1"].value == pytest.approx(0.5)


def test_the_calibration_error_is_highest_in_the_worst_language() -> None:
    rows = [_row("1", language, "positive") for language in ("da", "de")]
    outcomes = {SENTIMENT: [_said("positive", 0.9), _said("negative", 0.8)]}
    together = of_all_languages(translated_measures(rows, outcomes, TASKS), rows)
    assert together["sentiment.languages_worst_calibration_error"].value == pytest.approx(0.8)
    assert together["sentiment.languages_all_calibration_error"].value == pytest.approx(0.45)


def test_topics_are_held_against_the_answer_to_the_english_sentence() -> None:
    rows = [_row("1", "en", "positive"), _row("1", "de", "positive"), _row("2", "de", "positive")]
    outcomes = {TOPIC: [_topics(SPEED, PRICE), _topics(SPEED), _topics(PRICE)]}
    together = of_all_languages(translated_measures(rows, outcomes, TASKS), rows)
    # A sentence without its English original counts nowhere.
    assert together["topic.languages_mean_agreement_micro_f1"].value == pytest.approx(2 / 3)


def test_names_are_scored_in_each_language_and_a_failure_finds_none() -> None:
    name = {"start": 0, "end": 4, "label": "person", "text": "Anna"}
    row = {"text": "Anna", "entities": [name], "labels_annotated": ["person"], "source": "own"}
    rows = [{**row, "language": "de"}, {**row, "language": "sv"}]
    found = NerOutput((Entity(0, 4, "Anna", "person", 0.9),))
    outcomes: dict[str, list[Outcome]] = {
        NER: [found, ItemFailure("TOO_LONG", "no", retryable=False)]
    }
    together = of_all_languages(entity_measures(rows, outcomes, TASKS), rows)
    assert together["ner.languages_mean_span_f1"].value == pytest.approx(0.5)
    assert together["ner.languages_worst_span_f1"].value == 0


def test_translated_rows_are_read_where_they_are(tmp_path: Path) -> None:
    review = {"text": "a", "sentiment": "positive", "topics": []}
    (tmp_path / "reviews_dev.jsonl").write_text(json.dumps(review) + "\n")
    tasks = {SENTIMENT: TASKS[SENTIMENT]}
    assert read_dev_rows(tmp_path, tasks).translated == []

    file = tmp_path / TRANSLATED_FILE
    file.write_bytes(gzip.compress(json.dumps(_row("1", "de", "positive")).encode()))
    rows = read_dev_rows(tmp_path, tasks)
    assert rows.count(TRANSLATED_FILE) == 1
    assert set(rows.digests) == {"reviews_dev.jsonl", TRANSLATED_FILE}

    file.write_bytes(gzip.compress(json.dumps({"text": "a"}).encode()))
    with pytest.raises(RowsError, match="found no language, row, sentiment"):
        read_dev_rows(tmp_path, tasks)
    file.write_bytes(b"no archive")
    with pytest.raises(RowsError, match="expected JSON lines"):
        read_dev_rows(tmp_path, tasks)
