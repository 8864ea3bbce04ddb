"""Packages of models for tests: small ones of any content, and copies of the bundled encoder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.packages.manifest import (
    NOT_HASHED,
    TASKS_FOLDER,
    Package,
    write_manifest,
)
from reviewmesh_worker.packages.registry import Registry, RegistryError
from reviewmesh_worker.tasks.definition import Label, Task, load_task, load_tasks, write_task

DEFINED = load_tasks()
FILES = {"weights.safetensors": b"weights " * 100, "tokenizer/vocab.txt": b"a\nb\n"}


def another_version(folder: Path, task: str, version: str = "2", more: str = "") -> Task:
    """A bundled task under another version: another meaning of its first label, or one label
    `more`. Written to the folder, read from there."""
    bundled = DEFINED[task]
    labels = list(bundled.labels)
    if more:
        labels.append(Label(id=more, means="what the first version did not know"))
    else:
        labels[0] = labels[0].model_copy(update={"means": "in other words"})
    write_task(replace(bundled, version=version, labels=tuple(labels)), folder / task)
    return load_task(folder / task)


def carrying(folder: Path, tasks: Mapping[str, Task]) -> None:
    """As training makes a package: with the definitions of its tasks."""
    for name, task in tasks.items():
        write_task(task, folder / TASKS_FOLDER / name)


def small_package(
    folder: Path,
    version: str = "1",
    tasks: Mapping[str, Task] = DEFINED,
    files: Mapping[str, bytes] = FILES,
    **more: Any,
) -> Package:
    """A package that no engine can serve."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    facts: dict[str, Any] = {
        "name": "small",
        "kind": "encoder",
        "base": None,
        "license": "Apache-2.0",
        "data": [],
        "training": {"seed": 7},
    }
    write_manifest(folder, version=version, tasks=tasks, **(facts | more))
    return Package.open(folder)


def encoder_copy(
    folder: Path, version: str, tasks: Mapping[str, Task] = DEFINED, carries: bool = False
) -> Package:
    """The bundled encoder under another version."""
    folder.mkdir(parents=True)
    if carries:
        carrying(folder, tasks)
    for file in BUNDLED_MODEL.iterdir():
        if file.name not in NOT_HASHED:
            shutil.copyfile(file, folder / file.name)
    return small_package(folder, version, tasks, {}, name="e5-reviews")


def tampered(file: Path) -> None:
    """One bit of the file is another than it was."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def promote(registry: Registry, id: str) -> None:
    """Whatever a gate would say."""
    registry.promote(id, DEFINED, lambda candidate, serving, tasks: [])


def promote_in_turn(folder: Path, id: str, times: int, together: Barrier) -> None:
    """For a process of its own: promotes again and again what another takes out of service."""
    together.wait(60)
    for _ in range(times):
        try:
            promote(Registry(folder), id)
        except RegistryError as error:
            if "already" not in str(error):
                raise
