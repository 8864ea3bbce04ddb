"""`reviewmesh-models evaluate`, `gate` and `compare` on a few rows written here, real engine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reviewmesh_models.cli.__main__ import app
from reviewmesh_models.evaluation.report import Report, read_report
from reviewmesh_models.evaluation.rows import QUICK_ROWS, DevRows, quick_rows
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.packages.manifest import Package
from tests.packages import DEFINED, encoder_copy

BUNDLED_VERSION = Package.open(BUNDLED_MODEL).manifest.version

REVIEWS = [
    {
        "text": "Excellent app, very easy to use.",
        "source": "Own <store>",
        "sentiment": "positive",
        "topics": [
            {"topic": "online-experience.app-website", "polarity": "positive"},
            {"topic": "purchase-booking-experience.ease-of-use", "polarity": "positive"},
        ],
    },
    {
        "text": "Terrible. The app crashes whenever I open it.",
        "source": "elsewhere",
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


def said(code: int, *words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "220"})
    assert result.exit_code == code, result.output
    return result.output


def _write(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    _write(folder / "reviews_dev.jsonl", REVIEWS)
    _write(folder / "ner_dev.jsonl", ENTITIES)
    return folder


@pytest.fixture(scope="module")
def evaluated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with its report, made beside the bundled one."""
    package = encoder_copy(tmp_path_factory.mktemp("packages") / "two", "2").folder
    printed = said(0, "evaluate", package, data, "--against", BUNDLED_MODEL)
    rival = f"less e5-reviews {BUNDLED_VERSION}"
    for title in ("topic.with_polarity_micro_f1", rival, "hostile texts"):
        assert title in printed
    assert "at least 0.75: passed" in printed
    assert "few rows: sentiment.accuracy 1.000 is of 2 rows, 95 % from" in printed
    return package


@pytest.fixture
def report(evaluated: Path) -> Report:
    return read_report(evaluated)


def test_a_report_tells_what_was_evaluated_with_what(report: Report, data: Path) -> None:
    assert (report.package.name, report.package.version) == ("e5-reviews", "2")
    assert report.package.engine == "onnx"
    assert {file: one.rows for file, one in report.data.items()} == {
        "reviews_dev.jsonl": 2,
        "ner_dev.jsonl": 1,
    }
    assert {name: made.digest for name, made in report.tasks.items()} == {
        name: task.digest for name, task in DEFINED.items()
    }
    assert str(data.parent) not in report.command


def test_every_task_is_scored(report: Report) -> None:
    for name in ("sentiment.accuracy", "topic.polarity_accuracy", "ner.span_f1"):
        score = report.scores[name]
        assert (score.low, score.value, score.high) == (1, 1, 1), name
    for name in ("sentiment.failed", "topic.failed", "ner.failed"):
        assert report.scores[name].value == 0
    assert 0 <= report.scores["sentiment.calibration_error"].value <= 1
    assert report.baselines["sentiment.accuracy"] == 0.5
    assert report.baselines["ner.span_f1"] == 0
    assert report.labels["ner"]["person"].gold == 1
    assert report.confusion is not None and sum(map(sum, report.confusion.counts)) == 2
    assert report.slices["source"]["elsewhere"]["sentiment.accuracy"].rows == 1
    assert set(report.slices) == {"source", "length", "language, own short reviews"}
    assert report.speed.reviews_per_s.value > 0


def test_hostile_texts_get_a_typed_answer(report: Report) -> None:
    families = {"control_characters", "huge", "asks_for_a_topic", "turn_tokens", "nothing_added"}
    assert families < report.hostile.keys()
    for family in report.hostile.values():
        assert family.texts > 0 and family.failed == 0
    for name in ("asks_for_a_sentiment", "forged_answer", "turn_tokens"):
        assert report.hostile[name].reached["sentiment"].value == 0


def test_golden_rows_are_judged(report: Report) -> None:
    for name, golden in report.golden.items():
        assert golden.rows == len(DEFINED[name].golden) >= 20
        assert golden.injections >= 6
        assert golden.right + len(golden.missed) == golden.rows
        assert golden.held == golden.injections


def test_it_is_held_against_another_package(report: Report) -> None:
    (against,) = report.against
    assert against.package.version == BUNDLED_VERSION
    assert against.package.digest != report.package.digest
    assert against.differences["sentiment.accuracy"].value == 0


class _Page(HTMLParser):
    """Checks that what is opened is closed, and gathers what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta",):
            self.open.append(tag)
        if tag in ("script", "link", "img", "iframe"):
            self.loaded.append(tag)
        self.loaded += [name for name, _ in attrs if name in ("src", "href", "srcset")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_loads_nothing(evaluated: Path) -> None:
    written = (evaluated / "evaluation.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(written)
    page.close()
    assert page.open == [] and page.loaded == []
    assert "Own <store>" in page.words
    assert "url(" not in written and "@import" not in written
    assert set(re.findall(r"https?://[^\"\s]+", written)) == {"http://www.w3.org/2000/svg"}
    assert written.count("<svg") > 30


def test_a_gate_decides(evaluated: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate.yaml"
    gate.write_text("floors: {sentiment.accuracy: 0.9}\nmargins: {topic.micro_f1: 0.1}\n")
    command = ("gate", evaluated, "--gate", gate)
    assert "NOT PASSED" not in said(0, *command, "--against", BUNDLED_MODEL)
    gate.write_text("ceilings: {sentiment.accuracy: 0.9}\n")
    assert "NOT PASSED" in said(1, *command)
    gate.write_text("margins: {topic.micro_f1: 0.1}\n")
    third = encoder_copy(tmp_path / "three", "3").folder
    assert "evaluate against it" in said(1, *command, "--against", third)
    assert "expected a report at" in said(2, "gate", third)


def test_a_quick_look_writes_no_report(tmp_path: Path, data: Path) -> None:
    package = encoder_copy(tmp_path / "quick", "4", {"sentiment": DEFINED["sentiment"]}).folder
    printed = said(0, "evaluate", package, data, "--quick")
    assert "sentiment.accuracy" in printed and "hostile texts" not in printed
    assert "no report was written" in printed
    assert not (package / "evaluation.json").exists()
    refused = said(2, "evaluate", package, data, "--quick", "--output", tmp_path / "report")
    assert "got both" in refused and not (tmp_path / "report").exists()


def test_quick_rows_are_spread_over_each_file() -> None:
    rows = DevRows([{"text": str(n)} for n in range(1001)], [], {}, [{"text": "other"}])
    chosen = quick_rows(rows)
    assert len(chosen.reviews) == QUICK_ROWS and chosen.translated == ()
    places = [int(row["text"]) for row in chosen.reviews]
    assert places[0] == 0 and places[-1] > 990 and len(set(places)) == QUICK_ROWS
    assert list(quick_rows(replace(rows, reviews=rows.reviews[:3])).reviews) == rows.reviews[:3]


def test_a_package_for_one_task_needs_the_rows_of_that_task_only(tmp_path: Path) -> None:
    package = encoder_copy(tmp_path / "names", "1", {"ner": DEFINED["ner"]}).folder
    _write(tmp_path / "ner_dev.jsonl", ENTITIES)
    output = tmp_path / "report"
    said(0, "evaluate", package, tmp_path, "--output", output)
    report = read_report(output)
    assert {name.split(".")[0] for name in report.scores} == {"ner"}
    assert report.hostile["turn_tokens"].failed == 0
    assert report.confusion is None


def test_a_package_says_the_same_as_its_copy(evaluated: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "differences.json"
    printed = said(0, "compare", evaluated, BUNDLED_MODEL, data, "--output", file)
    assert "100.00%" in printed
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["same"] == 1 and written["texts"] == 2
    assert all(task["disagreements"] == [] for task in written["tasks"].values())


@pytest.mark.parametrize(
    ("file", "row", "problem"),
    [
        ("reviews_dev.jsonl", REVIEWS[0] | {"sentiment": "glad"}, "found 'glad'"),
        ("reviews_dev.jsonl", REVIEWS[0] | {"topics": [{"topic": "weather"}]}, "found 'weather'"),
        ("reviews_dev.jsonl", {"text": "no labels"}, "found no sentiment, topics"),
        ("ner_dev.jsonl", {"text": "no names"}, "found no entities, labels_annotated, source"),
    ],
)
def test_rows_of_other_tasks_are_named(
    tmp_path: Path, file: str, row: dict[str, object], problem: str
) -> None:
    _write(tmp_path / "reviews_dev.jsonl", REVIEWS)
    _write(tmp_path / "ner_dev.jsonl", ENTITIES)
    _write(tmp_path / file, [row])
    printed = said(2, "evaluate", BUNDLED_MODEL, tmp_path, "--output", tmp_path)
    assert f"{file}, row 1: " in printed and problem in printed


def test_what_is_missing_is_named(tmp_path: Path, data: Path) -> None:
    assert "reviews_dev.jsonl, found no such file" in said(
        2, "evaluate", BUNDLED_MODEL, tmp_path, "--output", tmp_path
    )
    assert "expected the manifest of a package" in said(2, "evaluate", tmp_path, data)
    assert "--registry" in said(2, "evaluate", "e5-reviews@1", data)
    (tmp_path / "reviews_dev.jsonl").write_text("{")
    assert "expected JSON lines" in said(
        2, "evaluate", BUNDLED_MODEL, tmp_path, "--output", tmp_path
    )
