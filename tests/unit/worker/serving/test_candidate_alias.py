"""A worker for the candidate of a rollout: which package it serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from reviewmesh_worker.packages.registry import Registry
from reviewmesh_worker.serving.package_selection import RegistryAliases
from reviewmesh_worker.serving.settings import Settings
from tests.packages import DEFINED, small_package

TASK = "ner"


def test_it_follows_the_alias_candidate_and_stays_when_that_is_promoted(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    add(registry, tmp_path, "1")
    aliases = {
        "serving": RegistryAliases(registry.folder, DEFINED, ()),
        "candidate": RegistryAliases(registry.folder, DEFINED, (), "candidate"),
    }

    def served() -> dict[str, str]:
        return {name: alias.select(TASK).manifest.version for name, alias in aliases.items()}

    promote(registry, "1")
    assert served() == {"serving": "1", "candidate": "1"}
    before = aliases["candidate"].state()
    add(registry, tmp_path, "2")
    assert aliases["candidate"].state() != before
    assert served() == {"serving": "1", "candidate": "2"}
    assert aliases["candidate"].previous(TASK) is None
    promote(registry, "2")
    assert served() == {"serving": "2", "candidate": "2"}


def add(registry: Registry, folder: Path, version: str) -> None:
    registry.add(small_package(folder / version, version).folder, DEFINED)


def promote(registry: Registry, version: str) -> None:
    registry.promote(f"small@{version}", DEFINED, lambda *_: [])


def test_it_needs_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWMESH_WORKER__ALIAS", "candidate")
    with pytest.raises(ValidationError, match="expected a registry"):
        Settings()
