"""Whether `reviewmesh up` runs insights, which need an environment of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reviewmesh.local import probes, programs
from reviewmesh.local.errors import LocalStackError
from reviewmesh.local.paths import StackPaths
from reviewmesh.local.state import StackInfo


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment that is looked for beside that of the command line; not there yet."""
    monkeypatch.delenv(programs.INSIGHTS_PYTHON, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    return tmp_path / ".venv-insights"


def test_the_environment_beside_counts_once_it_is_whole(beside: Path) -> None:
    assert programs.insights_python() is None
    (beside / "bin").mkdir(parents=True)
    (beside / "bin" / "python").touch()
    assert programs.insights_python() is None, "it is being built"
    (beside / "insights.stamp").touch()
    assert programs.insights_python() == beside / "bin" / "python"


def test_one_that_was_named_is_taken_or_refused(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(programs.INSIGHTS_PYTHON, sys.executable)
    assert programs.insights_python() == Path(sys.executable)
    monkeypatch.setenv(programs.INSIGHTS_PYTHON, str(beside))
    with pytest.raises(LocalStackError, match=programs.INSIGHTS_PYTHON):
        programs.insights_python()


@pytest.mark.parametrize("python", [None, Path("/faust/bin/python")])
def test_insights_are_started_and_asked_only_with_a_python(
    python: Path | None, tmp_path: Path
) -> None:
    names = programs.port_names(mesh=True, insights=python is not None)
    ports = dict(zip(names, range(20_000, 20_100), strict=False))
    programs_ = programs.mesh_programs(StackPaths.at(tmp_path), ports, "s" * 64, python)
    started = {program.name: program for program in programs_}
    assert started.keys() >= {*programs.SERVICES, programs.WORKER}
    assert (programs.INSIGHTS in started) == (python is not None)
    info = StackInfo("id", True, ports, None, "")
    assert probes.checks(info).keys() == {*programs.backing_of(info.ports), *started}
    if python is not None:
        insights = started[programs.INSIGHTS]
        assert insights.command == [str(python), "-m", "reviewmesh.insights"]
        assert insights.environment["REVIEWMESH_SLOT"] == "0"
