"""The screen of packages, over registries that the real registry wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewmesh.console.packages import kept_registry, read_registry
from reviewmesh_models.evaluation.report import read_report
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.packages.registry import NotPassed, Registry
from reviewmesh_worker.tasks.definition import load_tasks
from tests.unit.console.page import LOG, kept, page, text_of

BUNDLED = Package.open(BUNDLED_MODEL)
TASKS = load_tasks()
HOSTILE = "<script>window.owned=1</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "packages").mkdir(parents=True)
    Registry(folder).add(BUNDLED_MODEL, TASKS)
    return folder


def text(tmp_path: Path, folder: Path | None) -> str:
    answer = page(tmp_path, registry=kept_registry(folder, LOG)).get("/packages")
    assert answer.status_code == 200
    return text_of(answer.text)


def test_a_candidate_its_scores_and_that_nothing_was_promoted(tmp_path: Path, folder: Path) -> None:
    said = text(tmp_path, folder)
    assert "stands as candidate ner, candidate sentiment, candidate topic" in said
    assert "gate not promoted yet" in said
    score = read_report(BUNDLED_MODEL).scores["ner.span_f1"]
    row = f"ner.span_f1 {score.value:.3f} {score.low:.3f} {score.high:.3f} {score.rows:,}"
    assert row in said
    assert "made for ner 1 , sentiment 1 , topic 1".replace(" ,", ",") in said.replace(" ,", ",")
    assert "Nothing was promoted yet." in said


def test_promotions_are_told_with_their_verdicts(tmp_path: Path, folder: Path) -> None:
    registry = Registry(folder)
    registry.promote(BUNDLED.id, TASKS, lambda *of: [], only=["topic"])
    with pytest.raises(NotPassed):
        registry.promote(BUNDLED.id, TASKS, lambda *of: ["ner.span_f1: too low"])
    registry.promote(
        BUNDLED.id, TASKS, lambda *of: ["ner.span_f1: too low"], forced_because=HOSTILE
    )
    said = text(tmp_path, folder)
    assert "serving topic (passed its gate)" in said and "serving ner (forced)" in said
    assert f"gate forced, because {HOSTILE}: ner.span_f1: too low" in said
    assert f"promote {BUNDLED.id} topic after nothing passed its gate" in said
    answer = page(tmp_path / "again", registry=kept_registry(folder, LOG)).get("/packages")
    assert HOSTILE not in answer.text


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (f"packages/{BUNDLED.id}/manifest.json", "{", "manifest.json: expected what"),
        (f"packages/{BUNDLED.id}/evaluation.json", '{"made_at": "x"}', "scores: Field required"),
        ("aliases/ner.json", "[]", "ner.json: expected what `reviewmesh-models` writes"),
        ("history.jsonl", "not json\n", "history.jsonl: expected what"),
        ("history.jsonl", "\udc80", "history.jsonl: expected UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_shown(
    tmp_path: Path, folder: Path, file: str, content: str, words: str
) -> None:
    (folder / file).write_bytes(content.encode(errors="surrogateescape"))
    said = text(tmp_path, folder)
    assert words in said and BUNDLED.id in said


def test_a_folder_that_is_no_registry_is_named(tmp_path: Path) -> None:
    said = text(tmp_path, tmp_path / "nowhere")
    assert "expected a registry of packages at" in said and "No such file" in said


def test_an_empty_registry_and_none_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty" / "packages").mkdir(parents=True)
    assert "is empty. reviewmesh-models add" in text(tmp_path / "a", tmp_path / "empty")
    assert "REVIEWMESH_CONSOLE__MODEL_REGISTRY" in text(tmp_path / "b", None)


def test_a_registry_is_read_whole(folder: Path, tmp_path: Path) -> None:
    found = read_registry(folder)
    assert (found.number, found.problems) == (1, ())
    assert BUNDLED.id in text_of(page(tmp_path, registry=kept(found)).get("/packages").text)
