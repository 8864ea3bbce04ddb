"""`reviewmesh-models` on a registry: from a package and its report to what serves, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reviewmesh_models.cli.__main__ import app
from reviewmesh_worker.packages.registry import Registry
from tests.packages import DEFINED, another_version, encoder_copy, small_package

REVIEWS = [
    {
        "text": "Excellent app, very easy to use.",
        "source": "own",
        "sentiment": "positive",
        "topics": [{"topic": "online-experience.app-website", "polarity": "positive"}],
    },
    {
        "text": "Terrible. The app crashes whenever I open it.",
        "source": "own",
        "sentiment": "negative",
        "topics": [{"topic": "online-experience.app-website", "polarity": "negative"}],
    },
]
NAMES = [
    {
        "text": "I met Barack Obama in Berlin.",
        "source": "own",
        "labels_annotated": ["person", "location"],
        "entities": [{"start": 6, "end": 18, "label": "person", "text": "Barack Obama"}],
    }
]
REACHABLE = "floors: {sentiment.accuracy: 0.9}\n"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder as version 1, with the report of its evaluation."""
    folder = tmp_path_factory.mktemp("evaluated")
    for name, rows in (("reviews_dev.jsonl", REVIEWS), ("ner_dev.jsonl", NAMES)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    package = encoder_copy(folder / "package", "1").folder
    said(0, "evaluate", package, folder)
    return package


@pytest.fixture
def registry(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Version 1 and 2 are candidates; only 1 was evaluated. Commands find it by the setting."""
    folder = tmp_path / "registry"
    monkeypatch.setenv("REVIEWMESH_WORKER__MODEL_REGISTRY", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    said(0, "add", evaluated)
    said(0, "add", encoder_copy(tmp_path / "2", "2").folder)
    (folder / "gate.yaml").write_text(REACHABLE)
    return Registry(folder)


def said(code: int, *words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_a_package_that_passed_its_gate_serves_and_is_rolled_back(registry: Registry) -> None:
    first, second = "e5-reviews@1", "e5-reviews@2"
    assert said(0, "promote", first) == f"{first} serves ner, sentiment, topic\n"
    assert registry.resolve("ner").entry.gate == "passed"
    refused = said(1, "promote", second)
    assert "expected a report at" in refused and "reviewmesh-models evaluate" in refused
    said(0, "promote", second, "--task", "ner", "--force", "a trial of an hour")
    shown = said(0, "show", second)
    assert "serving ner (forced), candidate sentiment, candidate topic" in shown
    assert "ner after e5-reviews@1, forced: a trial of an hour" in shown
    listed = said(0, "list")
    assert "serving ner (forced)" in listed and listed.count("passed its gate") == 1
    assert "NOT PASSED:" in listed
    assert said(0, "rollback", second) == f"{first} serves ner again\n"
    assert "nothing served" in said(2, "rollback", first, "--task", "topic")


def test_another_version_of_a_task_is_promoted_and_rolled_back(
    registry: Registry, tmp_path: Path
) -> None:
    said(0, "promote", "e5-reviews@1")
    made_for = DEFINED | {"topic": another_version(tmp_path / "tasks", "topic")}
    said(0, "add", encoder_copy(tmp_path / "3", "3", made_for, carries=True).folder)
    assert "topic 2" in said(0, "list")
    refused = said(1, "promote", "e5-reviews@3")
    assert "expected a report at" in refused and "made for version" not in refused
    said(0, "promote", "e5-reviews@3", "--force", "a trial")
    said(0, "rollback", "e5-reviews@3")
    assert registry.resolve("topic").package.id == "e5-reviews@1"


def test_a_package_that_carries_no_definition_needs_the_folder_with_it(
    registry: Registry, evaluated: Path, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks"
    made_for = {"topic": another_version(tasks, "topic")}
    fourth = encoder_copy(tmp_path / "4", "4", made_for).folder
    refused = "made for version 2 of the task topic, which it does not carry"
    forced = ["promote", "e5-reviews@4", "--force", "a trial"]
    for command in (["evaluate", fourth, evaluated.parent, "--quick"], ["add", fourth], forced):
        assert refused in said(2, *command)
        said(0, *command, "--tasks", tasks)
    assert "NOT PASSED: expected a report at" in said(0, "list", "--tasks", tasks)


def test_the_report_of_another_package_is_none(registry: Registry) -> None:
    for name in ("evaluation.json", "evaluation.html"):
        shutil.copyfile(
            registry.package("e5-reviews@1").folder / name,
            registry.package("e5-reviews@2").folder / name,
        )
    assert "report of this package: expected sha256:" in said(1, "promote", "e5-reviews@2")
    assert said(0, "list").count("passed its gate") == 1
    assert registry.aliases("ner").serving is None


def test_a_registrys_own_gate_decides(registry: Registry) -> None:
    registry.gate_file.write_text("floors: {sentiment.accuracy: 1.1}\n")
    refused = said(1, "promote", "e5-reviews@1")
    assert "sentiment.accuracy: expected at least 1.1, got 1.0" in refused
    # A floor of a task that is not promoted is not asked for.
    said(0, "promote", "e5-reviews@1", "--task", "ner")
    registry.gate_file.write_text("flaws: {}\n")
    assert "gate.yaml: flaws" in said(1, "promote", "e5-reviews@1")


def test_what_is_off_is_listed_and_does_not_come_in(registry: Registry, tmp_path: Path) -> None:
    package = registry.package("e5-reviews@2")
    (package.folder / "notes.txt").write_text("mine")
    listed = said(0, "list")
    assert (
        "does not name notes.txt" in listed.replace("\n", "")
        and listed.count("passed its gate") == 1
    )
    (package.folder / "manifest.json").unlink()
    assert "expected the manifest of a package" in said(2, "show", package.id)
    small = small_package(tmp_path / "small", tasks={"ner": DEFINED["ner"]})
    (small.folder / "weights.safetensors").unlink()
    assert "names weights.safetensors, which the folder has not" in said(2, "add", small.folder)


def test_commands_need_a_registry(tmp_path: Path) -> None:
    assert "--registry or REVIEWMESH_WORKER__MODEL_REGISTRY" in said(2, "list")
    assert "`reviewmesh-models add` makes one" in said(2, "list", "--registry", tmp_path)
    assert "has no package" in said(2, "promote", "e5-reviews@9", "--registry", made(tmp_path))


def made(folder: Path) -> Path:
    Registry(folder / "registry").add(small_package(folder / "small").folder, DEFINED)
    return folder / "registry"


def test_a_package_of_the_registry_becomes_the_candidate_again(registry: Registry) -> None:
    first, second = "e5-reviews@1", "e5-reviews@2"
    said(0, "promote", first)
    said(0, "promote", second, "--force", "a trial")
    assert registry.aliases("ner").candidate is None
    said(0, "rollback", second)
    assert said(0, "candidate", second, "--task", "ner") == f"{second} is a candidate for ner\n"
    now = registry.aliases("ner").candidate
    assert now is not None and now.package == second
    assert registry.aliases("topic").candidate is None
    assert "serves topic already" in said(2, "candidate", first, "--task", "topic")
