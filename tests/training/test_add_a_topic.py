"""The page "Add a topic", as a reader pastes it, on rows made here; a worker follows."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reviewmesh_models.training.rows import is_held_out
from reviewmesh_worker.tasks import TASKS, TOPIC
from tests.docs.pages import DOCS, ROOT, RUNS_UNTIL_STOPPED, Block, blocks_of
from tests.inference import WorkerProcess, infer, soon
from tests.training.command import write_settings
from tests.training.generated import review, write_data
from tests.training.test_encoder import SETTINGS

PAGE = DOCS / "add-a-topic.md"
NEW = "staff-support.chat"
BEFORE, AFTER = ("e5-reviews", "1"), ("my-reviews", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader works: a clone, own rows and config, and a gate that a tiny model can pass."""
    (tmp_path / "inference-worker").symlink_to(ROOT / "inference-worker")
    write_rows(tmp_path / "my-rows")
    settings = {**SETTINGS, "epochs": 1, "name": AFTER[0], "version": AFTER[1]}
    write_settings(tmp_path, settings).rename(tmp_path / "my-config.yaml")
    (tmp_path / "my-models").mkdir()
    gate = "floors: {topic.micro_f1: 0, topic.golden_right: 0}\nmargins: {topic.micro_f1: 1}\n"
    (tmp_path / "my-models/gate.yaml").write_text(gate)
    return tmp_path


def write_rows(folder: Path) -> None:
    write_data(folder, reviews=60, entities=60)
    random_ = random.Random(8)
    for file in ("reviews_train", "reviews_dev"):
        rows = [review(random_, 900 + number) for number in range(8)]
        for row in rows:
            row["text"] = f"{file}: the chat was great. {row['text']}"
            row["topics"].append({"topic": NEW, "polarity": "positive"})
        assert not all(is_held_out(row["text"]) for row in rows)
        with (folder / f"{file}.jsonl").open("a") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def worker(folder: Path) -> Iterator[WorkerProcess]:
    """As the page starts it."""
    [block] = [block for block in blocks_of(PAGE) if RUNS_UNTIL_STOPPED in block.marks]
    setting, _, program = block.text.strip().partition(" ")
    name, _, value = setting.partition("=")
    assert program == "python -m reviewmesh_worker"
    made = WorkerProcess(folder / "worker", {name: str(folder / value)})
    yield made
    made.stop()


def paste(block: Block, folder: Path) -> str:
    programs = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-e", "-c", block.text],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{block}:\n{done.stdout}"
    return done.stdout


def answered(worker: WorkerProcess) -> tuple[str, str]:
    """Model and version of the task of an answer."""
    answer = worker.stub.Infer(infer(["The chat was great."], task=TOPIC), timeout=30)
    assert answer.results[0].WhichOneof("outcome") == TOPIC
    return answer.lineage.model, answer.lineage.prompt_version


def test_the_page_from_the_definition_to_the_way_back(folder: Path, worker: WorkerProcess) -> None:
    said = ""
    for block in blocks_of(PAGE):
        if RUNS_UNTIL_STOPPED in block.marks:
            worker.start()
            assert answered(worker) == BEFORE
            continue
        said += paste(block, folder)
        if "promote my-reviews" in block.text:
            soon(lambda: answered(worker) == AFTER, "the new version answers")
        if "rollback" in block.text:
            soon(lambda: answered(worker) == BEFORE, "the version of before answers again")
    # What stands under a table is broken into its width.
    printed = " ".join(said.split())
    assert f"topic: without {NEW}, which only one of them knows" in printed
    assert "a quick look: no report was written" in printed
    assert "few rows: topic.micro_f1" in printed
    assert worker.refused("UNAVAILABLE") == 0
    described = (folder / "my-models/packages/my-reviews@2/manifest.json").read_text()
    versions = {task: made["version"] for task, made in json.loads(described)["tasks"].items()}
    assert versions == {**dict.fromkeys(TASKS, "1"), TOPIC: "2"}
