"""`reviewmesh-models evaluate` on a few rows written here, through the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reviewmesh_worker.cli import app

REVIEWS = [
    {
        "text": "Excellent app, very easy to use.",
        "sentiment": "positive",
        "topics": [
            {"topic": "online-experience.app-website", "polarity": "positive"},
            {"topic": "purchase-booking-experience.ease-of-use", "polarity": "positive"},
        ],
    },
    {
        "text": "Terrible. The app crashes whenever I open it.",
        "sentiment": "negative",
        "topics": [{"topic": "online-experience.app-website", "polarity": "negative"}],
    },
]
ENTITIES = [
    {
        "text": "I met Barack Obama in Berlin.",
        "source": "own",
        "labels_annotated": ["person", "location"],
        "entities": [
            {"start": 6, "end": 18, "label": "person", "text": "Barack Obama"},
            {"start": 22, "end": 28, "label": "location", "text": "Berlin"},
        ],
    }
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    _write(tmp_path / "reviews_dev.jsonl", REVIEWS)
    _write(tmp_path / "ner_dev.jsonl", ENTITIES)
    return tmp_path


def _write(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_evaluate_prints_and_writes_all_scores(data: Path) -> None:
    file = data / "scores.json"
    result = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "topics micro F1" in result.output
    scores = json.loads(file.read_text(encoding="utf-8"))
    assert scores["rows"] == {"reviews": 2, "entities": 1}
    assert scores["sentiment"]["accuracy"] == 1
    assert scores["entities"]["span_f1"] == 1
    assert scores["polarity"]["accuracy_on_gold_topics"] == 1
    assert 0 <= scores["sentiment"]["expected_calibration_error"] <= 1


def test_evaluate_says_the_same_twice(data: Path) -> None:
    written = []
    for name in ("first.json", "second.json"):
        file = data / name
        CliRunner().invoke(app, ["evaluate", "--data", str(data), "--json", str(file)])
        written.append(file.read_text(encoding="utf-8"))
    assert written[0] == written[1]


def test_missing_rows_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "reviews_dev.jsonl" in result.output.replace("\n", "")


def test_a_folder_without_a_model_is_named(data: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--model", str(data)])
    assert result.exit_code == 2
    assert "config.json" in result.output.replace("\n", "")
