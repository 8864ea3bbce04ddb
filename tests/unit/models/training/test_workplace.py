"""Where a training keeps what it needs to go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from reviewmesh_models.cli.__main__ import app
from reviewmesh_models.training.workplace import OutputError, Workplace

WHAT = {"config": {"seed": 7}, "data": {"reviews_train.jsonl": "ab"}}


def test_a_package_takes_its_place_whole(tmp_path: Path) -> None:
    output = tmp_path / "package"
    workplace = Workplace(output, WHAT)
    (workplace.package / "weights").write_text("x", encoding="utf-8")
    (workplace.package / "weights").chmod(0o600)
    (workplace.checkpoints / "checkpoint").write_text("y", encoding="utf-8")
    assert not output.exists()
    workplace.finish()
    assert [file.name for file in output.iterdir()] == ["weights"]
    assert (output / "weights").stat().st_mode & 0o077 == 0o044
    assert [file.name for file in tmp_path.iterdir()] == ["package"]


def test_the_same_training_finds_its_checkpoints_and_no_half_package(tmp_path: Path) -> None:
    first = Workplace(tmp_path / "package", WHAT)
    (first.checkpoints / "checkpoint").write_text("y", encoding="utf-8")
    (first.package / "half").write_text("x", encoding="utf-8")
    again = Workplace(tmp_path / "package", WHAT)
    assert (again.checkpoints / "checkpoint").is_file()
    assert not any(again.package.iterdir())


@pytest.mark.parametrize("part", WHAT)
def test_another_training_does_not_go_on_with_them(tmp_path: Path, part: str) -> None:
    first = Workplace(tmp_path / "package", WHAT)
    (first.checkpoints / "checkpoint").write_text("y", encoding="utf-8")
    with pytest.raises(OutputError, match=f"of another {part}; remove that folder"):
        Workplace(tmp_path / "package", {**WHAT, part: {}})
    assert (first.checkpoints / "checkpoint").is_file()


def test_a_package_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match="a package is never written over"):
        Workplace(tmp_path, WHAT)


def test_the_command_says_what_is_wrong_and_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "package"
    config = tmp_path / "config.yaml"
    config.write_text("kind: encoder\n", encoding="utf-8")
    for file, said in (
        (config, "epochs: Field required"),
        (tmp_path / "none.yaml", "expected a training config at"),
    ):
        command = ["train", str(file), "--data", str(tmp_path), "--output", str(output)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert said in result.output
    assert not list(tmp_path.glob("package*"))
