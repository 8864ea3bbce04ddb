"""What a registry lets serve, what it refuses, and what it remembers."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

from reviewmesh_worker.packages import registry as registry_module
from reviewmesh_worker.packages.files import locked
from reviewmesh_worker.packages.manifest import Package, PackageError
from reviewmesh_worker.packages.registry import NotPassed, Registry, RegistryError
from tests.packages import (
    DEFINED,
    another_version,
    carrying,
    promote_in_turn,
    small_package,
    tampered,
)

TASKS = sorted(DEFINED)


class Gate:
    """Lets every package pass but those named; remembers what it was asked."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.asked: list[tuple[str, str | None, list[str]]] = []

    def __call__(
        self, candidate: Package, serving: Package | None, tasks: Collection[str]
    ) -> list[str]:
        self.asked.append((candidate.id, serving.id if serving else None, sorted(tasks)))
        return ["too bad"] if candidate.id in self.failing else []


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With small@1 and small@2 for every task."""
    made = Registry(tmp_path / "registry")
    for version in ("1", "2"):
        made.add(small_package(tmp_path / version, version).folder, DEFINED)
    return made


def promote(
    registry: Registry, id: str, *only: str, gate: Gate | None = None, force: str = ""
) -> list[str]:
    return registry.promote(id, DEFINED, gate or Gate(), only, force)


def serving(registry: Registry) -> dict[str, str]:
    return {task: registry.resolve(task).package.id for task in TASKS}


def stand(registry: Registry, task: str) -> dict[str, str | None]:
    aliases = registry.aliases(task)
    return {
        name: entry and entry.package
        for name in ("serving", "candidate", "previous")
        for entry in [getattr(aliases, name)]
    }


def edit(registry: Registry, task: str, **fields: Any) -> None:
    file = registry.folder / "aliases" / f"{task}.json"
    aliases = json.loads(file.read_text())
    aliases["serving"] |= fields
    file.write_text(json.dumps(aliases))


# -- adding ------------------------------------------------------------------------------------


def test_a_package_that_is_added_is_copied_and_a_candidate(
    registry: Registry, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "2")
    assert registry.ids() == ["small@1", "small@2"]
    assert registry.package("small@2").folder == registry.folder / "packages/small@2"
    assert stand(registry, "ner") == {"serving": None, "candidate": "small@2", "previous": None}
    assert [path.name for path in (registry.folder / "packages").iterdir()].count("small@1") == 1
    with pytest.raises(RegistryError, match=r"no package of .* serves the task ner; promote"):
        registry.resolve("ner")


def test_a_candidate_is_resolved_also_once_it_was_promoted(registry: Registry) -> None:
    assert registry.resolve_candidate("ner").package.id == "small@2"
    promote(registry, "small@2")
    assert stand(registry, "ner")["candidate"] is None
    assert registry.resolve_candidate("ner").package.id == "small@2"


def test_an_id_is_given_once(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="small@1 already; make the package under another"):
        registry.add(small_package(tmp_path / "again", "1", training={}).folder, DEFINED)
    assert [name for name in os.listdir(registry.folder / "packages") if name[0] == "."] == []


@pytest.mark.parametrize("damage", ["bytes", "task"])
def test_a_package_that_is_off_does_not_come_in(
    registry: Registry, tmp_path: Path, damage: str
) -> None:
    tasks = DEFINED
    if damage == "task":
        tasks = DEFINED | {"ner": dataclasses.replace(DEFINED["ner"], version="7")}
    package = small_package(tmp_path / "3", "3", tasks)
    if damage == "bytes":
        tampered(package.folder / "weights.safetensors")
    with pytest.raises(PackageError):
        registry.add(package.folder, DEFINED)
    assert registry.ids() == ["small@1", "small@2"]
    assert sorted(os.listdir(registry.folder / "packages")) == ["small@1", "small@2"]
    assert stand(registry, "ner")["candidate"] == "small@2"


def test_a_folder_that_is_no_registry_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"expected a registry of packages at .*add` makes one"):
        Registry(tmp_path).ids()


# -- promoting ---------------------------------------------------------------------------------


def test_a_promotion_moves_every_alias_and_a_rollback_moves_them_back(registry: Registry) -> None:
    assert promote(registry, "small@1") == TASKS
    assert promote(registry, "small@2") == TASKS
    assert stand(registry, "topic") == {
        "serving": "small@2",
        "candidate": None,
        "previous": "small@1",
    }
    assert registry.rollback("small@2", DEFINED) == dict.fromkeys(TASKS, "small@1")
    assert serving(registry) == dict.fromkeys(TASKS, "small@1")
    # It may be taken back as well.
    assert registry.rollback("small@1", DEFINED) == dict.fromkeys(TASKS, "small@2")
    changes = [(change.action, change.package, change.gate) for change in registry.history()]
    assert changes[:2] == [("promote", "small@1", "passed"), ("promote", "small@2", "passed")]
    assert {change[:2] for change in changes[2:5]} == {("rollback", "small@1")}
    assert {change[:2] for change in changes[5:]} == {("rollback", "small@2")}


def test_single_tasks_are_promoted_and_rolled_back(registry: Registry) -> None:
    promote(registry, "small@1")
    assert promote(registry, "small@2", "topic") == ["topic"]
    assert serving(registry) == {"ner": "small@1", "sentiment": "small@1", "topic": "small@2"}
    assert promote(registry, "small@2") == ["ner", "sentiment"]
    assert registry.rollback("small@2", DEFINED, ["ner"]) == {"ner": "small@1"}
    assert serving(registry) == {"ner": "small@1", "sentiment": "small@2", "topic": "small@2"}


def test_a_package_is_held_against_each_that_serves(registry: Registry, tmp_path: Path) -> None:
    promote(registry, "small@1")
    promote(registry, "small@2", "topic")
    registry.add(small_package(tmp_path / "3", "3").folder, DEFINED)
    gate = Gate()
    promote(registry, "small@3", gate=gate)
    assert sorted(gate.asked) == [
        ("small@3", "small@1", ["ner", "sentiment"]),
        ("small@3", "small@2", ["topic"]),
    ]


def test_what_does_not_pass_its_gate_is_refused_or_forced_with_a_reason(
    registry: Registry,
) -> None:
    promote(registry, "small@1")
    gate = Gate("small@2")
    with pytest.raises(NotPassed, match="small@2 may not serve: too bad"):
        promote(registry, "small@2", gate=gate)
    assert serving(registry) == dict.fromkeys(TASKS, "small@1")
    promote(registry, "small@2", gate=gate, force="the old one shouts")
    assert registry.resolve("ner").entry.gate == "forced"
    last = registry.history()[-1]
    assert (last.gate, last.not_passed, last.forced_because) == (
        "forced",
        ["too bad"],
        "the old one shouts",
    )
    assert last.tasks == dict.fromkeys(TASKS, "small@1")


def test_a_reason_that_was_not_needed_is_no_force(registry: Registry) -> None:
    promote(registry, "small@1", force="to be sure")
    assert registry.resolve("ner").entry.gate == "passed"
    assert registry.history()[-1].forced_because == ""


def test_no_force_lets_a_tampered_package_serve(registry: Registry) -> None:
    promote(registry, "small@1")
    tampered(registry.package("small@2").folder / "weights.safetensors")
    with pytest.raises(PackageError, match=r"weights\.safetensors"):
        promote(registry, "small@2", force="now")
    assert serving(registry) == dict.fromkeys(TASKS, "small@1")


def test_a_tampered_package_is_not_rolled_back_to(registry: Registry) -> None:
    promote(registry, "small@1")
    promote(registry, "small@2")
    tampered(registry.package("small@1").folder / "weights.safetensors")
    with pytest.raises(PackageError, match=r"weights\.safetensors"):
        registry.rollback("small@2", DEFINED)
    assert serving(registry) == dict.fromkeys(TASKS, "small@2")


def test_a_package_that_serves_and_cannot_be_read_is_no_rival_but_a_reason_to_force(
    registry: Registry,
) -> None:
    promote(registry, "small@1")
    (registry.package("small@1").folder / "manifest.json").write_text("{")
    with pytest.raises(NotPassed, match="cannot be compared"):
        promote(registry, "small@2")
    promote(registry, "small@2", force="small@1 is broken")
    assert serving(registry) == dict.fromkeys(TASKS, "small@2")


@pytest.mark.parametrize(
    ("id", "only", "expected"),
    [
        ("small@9", (), "has no package 'small@9'; it has: small@1, small@2"),
        ("../packages/small@1", (), "has no package"),
        ("small@1", ("poetry",), "serves ner, sentiment, topic, not poetry"),
        ("small@1", (), "serves ner, sentiment, topic already"),
    ],
)
def test_what_cannot_be_promoted_is_said(
    registry: Registry, id: str, only: Iterable[str], expected: str
) -> None:
    promote(registry, "small@1")
    with pytest.raises(RegistryError) as caught:
        promote(registry, id, *only)
    assert expected in str(caught.value)


def test_what_cannot_be_rolled_back_is_said(registry: Registry) -> None:
    promote(registry, "small@1")
    with pytest.raises(RegistryError, match="nothing served ner before small@1"):
        registry.rollback("small@1", DEFINED)
    with pytest.raises(RegistryError, match="small@2 serves no task"):
        registry.rollback("small@2", DEFINED)
    with pytest.raises(RegistryError, match=r"small@1 serves .*, not poetry"):
        registry.rollback("small@1", DEFINED, ["ner", "poetry"])


# -- what serves -------------------------------------------------------------------------------


def test_an_alias_edited_by_hand_is_refused(registry: Registry) -> None:
    promote(registry, "small@1")
    edit(registry, "ner", gate=None)
    with pytest.raises(RegistryError, match=r"aliases/ner\.json: .* without having passed a gate"):
        registry.resolve("ner")
    edit(registry, "ner", gate="passed", digest="sha256:" + "0" * 64)
    with pytest.raises(RegistryError, match="was changed; copy the package anew"):
        registry.resolve("ner")
    edit(registry, "ner", package="small@9")
    with pytest.raises(RegistryError, match="has no package 'small@9'"):
        registry.resolve("ner")
    edit(registry, "ner", gate="sure")
    with pytest.raises(RegistryError, match=r"serving\.gate"):
        registry.resolve("ner")
    assert registry.resolve("topic").package.id == "small@1"


def test_a_manifest_changed_in_the_registry_is_refused(registry: Registry) -> None:
    promote(registry, "small@1")
    file = registry.package("small@1").folder / "manifest.json"
    file.write_text(file.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(RegistryError, match="was put there with the digest"):
        registry.resolve("ner")


# -- two at a time -----------------------------------------------------------------------------


def test_promotions_of_two_processes_leave_one_serving_everything(registry: Registry) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    processes = [
        context.Process(target=promote_in_turn, args=(registry.folder, id, 30, together))
        for id in ("small@1", "small@2")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(set(serving(registry).values())) == 1
    changes = registry.history()
    # Each followed the one before it, for every task: nobody wrote into another's change.
    before: dict[str, str | None] = dict.fromkeys(TASKS)
    for change in changes:
        assert change.tasks == before
        before = dict.fromkeys(TASKS, change.package)
    assert serving(registry) == before


def test_who_waits_too_long_for_another_is_told(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "LOCK_TIMEOUT_S", 0.1)
    with (
        locked(registry.folder / ".lock", 1),
        pytest.raises(RegistryError, match=r"another process changes .* try again"),
    ):
        promote(registry, "small@1")
    assert promote(registry, "small@1") == TASKS


def test_versions_of_a_task_stand_beside_each_other_and_mean_one_thing_each(
    registry: Registry, tmp_path: Path
) -> None:
    def add(package: str, version: str, **edit: str) -> Package:
        task = another_version(tmp_path / f"tasks-{package}", "topic", version, **edit)
        carrying(tmp_path / package, {"topic": task})
        made = small_package(tmp_path / package, package, {"topic": task})
        return registry.add(made.folder, DEFINED)

    add("3", "2", more="staff-support.chat")
    promote(registry, "small@1")
    assert promote(registry, "small@3") == ["topic"]
    assert registry.rollback("small@3", DEFINED) == {"topic": "small@1"}
    add("4", "2", more="staff-support.chat")
    with pytest.raises(PackageError, match=r"version 2 of the task topic .* raise `version`"):
        add("5", "2")
    assert "small@5" not in registry.ids()
    # In the registry is what tells; what comes with the project may be of the same version.
    with pytest.raises(PackageError, match="in small@1 the same version has"):
        add("6", "1")
    for id in ("small@1", "small@2"):
        shutil.rmtree(registry.package(id).folder)
    add("7", "1")
