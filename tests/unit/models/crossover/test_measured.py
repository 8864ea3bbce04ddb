"""Rates are read from the reports that the benchmarks write."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from reviewmesh_models.crossover.measured import FiguresError, read_rate

GPU = {
    "device": "NVIDIA H200",
    "ratio": 0.99,
    "tasks": {
        "topic": {"worker_reviews_per_s": 40, "offline_reviews_per_s": 41, "turns": [{"x": 1}]},
        "sentiment": {"worker_reviews_per_s": 120.0, "offline_reviews_per_s": 122},
    },
}


def written(folder: Path, report: Any) -> Path:
    file = folder / "report.json"
    file.write_text(json.dumps(report))
    return file


def test_a_review_takes_the_time_of_all_its_tasks(tmp_path: Path) -> None:
    measured = read_rate(written(tmp_path, GPU), [])
    # 1/40 + 1/120 of a second.
    assert measured.rate == 30
    assert measured.device == "NVIDIA H200"
    assert measured.figures == (
        "tasks.topic.worker_reviews_per_s",
        "tasks.sentiment.worker_reviews_per_s",
    )


def test_figures_can_be_named(tmp_path: Path) -> None:
    report = {"models": {"encoder": {"worker_reviews_per_s": 148.5}}}
    measured = read_rate(written(tmp_path, report), ["models.encoder.worker_reviews_per_s"])
    assert measured.rate == Fraction(297, 2)
    assert measured.device is None


@pytest.mark.parametrize(
    ("report", "figures", "said"),
    [
        ({}, [], r"tasks\.\*\.worker_reviews_per_s; name --figure; it has no rates"),
        (GPU, ["tasks.ner.worker_reviews_per_s"], "at tasks.ner.*it has tasks.topic.worker"),
        ({"tasks": {"ner": {"worker_reviews_per_s": 0}}}, [], "it has no rates"),
        ({"a": "fast"}, ["a"], "expected a rate above 0 at a"),
        ({"a": True}, ["a"], "expected a rate above 0 at a"),
        ([1, 2], ["0"], "expected a rate above 0 at 0"),
    ],
)
def test_a_report_without_the_rate_is_refused(
    report: Any, figures: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(FiguresError, match=said):
        read_rate(written(tmp_path, report), figures)


@pytest.mark.parametrize("text", ["", "no json", '{"a": '])
def test_what_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(FiguresError, match="expected JSON"):
        read_rate(file, [])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1"])
def test_a_rate_is_a_number_above_zero(number: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(f'{{"a": {number}}}')
    with pytest.raises(FiguresError, match="above 0"):
        read_rate(file, ["a"])
