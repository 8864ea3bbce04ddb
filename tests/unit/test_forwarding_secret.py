"""The secret that `reviewmesh up` draws for intake."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from reviewmesh.local import programs, state
from reviewmesh.local.paths import StackPaths
from reviewmesh.settings import IntakeSettings

VARIABLE = "REVIEWMESH_INTAKE__FORWARDING_SECRET"


def test_it_is_drawn_once_and_drawn_again_where_a_start_was_cut_short(tmp_path: Path) -> None:
    paths = StackPaths.at(tmp_path)
    drawn = state.forwarding_secret(paths)
    assert len(drawn) == 64
    assert state.forwarding_secret(paths) == drawn
    paths.forwarding_secret.write_text("")
    assert state.forwarding_secret(paths) not in ("", drawn)


def test_intake_alone_is_given_it(tmp_path: Path) -> None:
    ports = dict.fromkeys(programs.port_names(mesh=True), 1)
    told = programs.mesh_programs(StackPaths.at(tmp_path), ports, "s" * 64)
    assert [program.name for program in told if VARIABLE in program.environment] == ["intake"]


def test_a_short_one_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        IntakeSettings(forwarding_secret=SecretStr("short"))
    assert "short'" not in str(caught.value)
    assert "s" * 16 not in repr(IntakeSettings(forwarding_secret=SecretStr("s" * 16)))
