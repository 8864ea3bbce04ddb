"""Tasks as folders: what is read, what is refused, and when a task is another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reviewmesh_worker.tasks import BUNDLED_TASKS, TASKS
from reviewmesh_worker.tasks.definition import TaskError, load_task, load_tasks, write_task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled topics that a test may edit."""
    return Path(shutil.copytree(BUNDLED_TASKS / "topic", tmp_path / "topic"))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_bundled_tasks_are_whole_and_their_golden_rows_keep_to_their_labels() -> None:
    tasks = load_tasks()
    assert tuple(tasks) == TASKS
    for row in tasks["sentiment"].golden:
        assert row["sentiment"] in tasks["sentiment"].label_ids
    for row in tasks["topic"].golden:
        assert {topic["topic"] for topic in row["topics"]} <= set(tasks["topic"].label_ids)
    for row in tasks["ner"].golden:
        for name in row["entities"]:
            assert row["text"][name["start"] : name["end"]] == name["text"]
    for task in tasks.values():
        assert any("clean" in row for row in task.golden), "no golden row asks for a label"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("task.yaml", "the price, and whether", "the price and if"),
        ("task.yaml", "staff-support.email", "staff-support.mail"),
        ("prompt.txt", "You read", "You see"),
    ],
)
def test_who_changes_what_decides_an_answer_makes_another_task(
    folder: Path, file: str, old: str, new: str
) -> None:
    before = load_task(folder).digest
    edit(folder / file, old, new)
    assert load_task(folder).digest != before


def test_what_is_written_is_the_same_task(tmp_path: Path) -> None:
    for name, task in load_tasks().items():
        write_task(task, tmp_path / name)
        assert load_task(tmp_path / name) == task


def test_a_comment_or_a_golden_row_does_not(folder: Path) -> None:
    before = load_task(folder)
    (folder / "task.yaml").write_text("# a word\n" + (folder / "task.yaml").read_text())
    (folder / "golden.jsonl").write_text("")
    after = load_task(folder)
    assert after.digest == before.digest
    assert after.golden == ()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("task.yaml", "answer: polarity_per_label", "answer: spans", "expected the answer"),
        ("task.yaml", "staff-support.email", "staff-support.phone", "found twice"),
        ("task.yaml", "staff-support.email", "Staff Support", r"labels\.8\.id"),
        ("task.yaml", 'version: "1"', "version:", "version"),
        ("task.yaml", 'version: "1"', "version: [", "expected YAML"),
        ("prompt.txt", "{review}", "the review", "expected {review} once"),
        ("prompt.txt", "Review:\n{review}", "{review}\nAnswer:", "at the very end"),
        ("golden.jsonl", "{", "[", "expected JSON lines"),
    ],
)
def test_what_is_off_is_said(folder: Path, file: str, old: str, new: str, said: str) -> None:
    edit(folder / file, old, new)
    with pytest.raises(TaskError, match=said):
        load_task(folder)


def test_a_missing_file_and_an_empty_folder_are_said(folder: Path, tmp_path: Path) -> None:
    (folder / "prompt.txt").unlink()
    with pytest.raises(TaskError, match="expected a file of the task"):
        load_task(folder)
    with pytest.raises(TaskError, match="found none"):
        load_tasks(tmp_path / "nowhere")
