"""`reviewmesh-models train` refuses an edited task under its old version before it reads rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from reviewmesh_models.cli.__main__ import app
from reviewmesh_models.training.config import CONFIGS
from reviewmesh_worker.packages.registry import Registry
from tests.packages import DEFINED, another_version, carrying, small_package

REFUSED = "its definition was edited; raise `version` in its task.yaml"


def said(config: str, folder: Path, *more: object) -> str:
    words = ["train", CONFIGS / config, "--data", folder, "--output", folder / "made", *more]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, result.output
    assert not (folder / "made").exists()
    return result.output


def test_an_edited_task_needs_another_version(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    carried = DEFINED | {"topic": another_version(tmp_path / "own", "topic", "1")}
    carrying(tmp_path, carried)
    refused = said("encoder.yaml", tmp_path, "--tasks", tasks)
    assert REFUSED in refused and "version 1 of the task topic" in refused
    assert "in the tasks that come with the project" in refused


def test_a_version_that_the_registry_has_is_not_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "registry")
    second = another_version(tmp_path / "second", "topic", "2")
    carrying(tmp_path / "small", {"topic": second})
    package = small_package(tmp_path / "small", tasks={"topic": second})
    registry.add(package.folder, DEFINED)
    other = another_version(tmp_path / "other", "topic", "2", more="staff-support.chat")
    carrying(tmp_path, DEFINED | {"topic": other})
    tasks = ("--tasks", tmp_path / "tasks")
    assert REFUSED in said("encoder.yaml", tmp_path, *tasks, "--registry", registry.folder)
    monkeypatch.setenv("REVIEWMESH_WORKER__MODEL_REGISTRY", str(registry.folder))
    assert "and in small@1 the same version" in said("encoder.yaml", tmp_path, *tasks)
