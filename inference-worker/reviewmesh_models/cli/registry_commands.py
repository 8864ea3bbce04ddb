"""`reviewmesh-models list`, `show`, `add`, `candidate`, `promote`, `rollback`: a registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from reviewmesh_models.cli.command_line import (
    FAILED,
    RegistryFolder,
    TasksFolder,
    complain,
    ended,
    exits_on_errors,
)
from reviewmesh_models.evaluation.promotion import gate_of
from reviewmesh_worker.packages.manifest import PackageError
from reviewmesh_worker.packages.registry import (
    AliasEntry,
    Aliases,
    NotPassed,
    Registry,
    RegistryError,
)
from reviewmesh_worker.serving.settings import Settings
from reviewmesh_worker.tasks.definition import Task, load_tasks

Id = Annotated[str, typer.Argument(help="Package as NAME@VERSION.")]
Tasks = Annotated[
    list[str] | None, typer.Option("--task", help="Only this task; may be given several times.")
]


def list_packages(registry: RegistryFolder = None, tasks: TasksFolder = None) -> None:
    """Packages of a registry, what they were made for, and which of them serve."""
    with exits_on_errors():
        found, defined = _opened(registry, tasks)
        table = Table("package", "kind", "tasks", "stands as", "gate")
        standing = _standing(found)
        for id in found.ids():
            try:
                package = found.package(id)
                package.verify(defined)
                failures = found.gate_failures(package, gate_of(found.gate_file))
            except (PackageError, RegistryError) as error:
                table.add_row(id, "", "", ", ".join(standing.get(id, [])), str(error))
                continue
            made_for = package.manifest.tasks
            table.add_row(
                id,
                package.manifest.kind,
                ", ".join(f"{task} {made_for[task].version}" for task in made_for),
                ", ".join(standing.get(id, [])),
                f"NOT PASSED: {'; '.join(failures)}" if failures else "passed its gate",
            )
    Console().print(table)


def show(id: Id, registry: RegistryFolder = None) -> None:
    """Show a package's manifest, where it serves, and its history."""
    with exits_on_errors():
        found, _ = _opened(registry, None)
        package = found.package(id)
        standing = _standing(found).get(id, [])
        done = [line for line in found.history() if line.package == id]
    console = Console()
    about = package.manifest
    rows = {
        "folder": str(package.folder),
        "digest": package.digest,
        "kind": about.kind,
        "tasks": ", ".join(f"{name} {task.version}" for name, task in about.tasks.items()),
        "base": "none" if about.base is None else f"{about.base.name}, {about.base.licence}",
        "licence": about.license,
        "data": "; ".join(f"{one.name}, {one.rows} rows, {one.licence}" for one in about.data),
        "training": ", ".join(f"{key} {value}" for key, value in about.training.items()),
        "stands as": ", ".join(standing) or "nothing",
        "made": about.created_at.isoformat(),
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    for line in done:
        forced = f", forced: {line.forced_because}" if line.forced_because else ""
        after = ", ".join(f"{task} after {was or 'nothing'}" for task, was in line.tasks.items())
        console.print(f"{line.at.isoformat()} {line.action}: {after}{forced}", markup=False)


def add(
    folder: Annotated[Path, typer.Argument(help="Folder of the package.")],
    registry: RegistryFolder = None,
    tasks: TasksFolder = None,
) -> None:
    """Copy a package into a registry, verified; it becomes the candidate of its tasks."""
    with exits_on_errors():
        found, defined = _opened(registry, tasks)
        package = found.add(folder, defined)
    console = Console()
    console.print(f"{package.id} is a candidate for {', '.join(package.manifest.tasks)}")
    console.print(f"{package.folder}", soft_wrap=True)


def promote(
    id: Id,
    registry: RegistryFolder = None,
    task: Tasks = None,
    tasks: TasksFolder = None,
    force: Annotated[
        str, typer.Option(metavar="REASON", help="Serve what did not pass its gate; recorded.")
    ] = "",
) -> None:
    """Let a package serve its tasks if it passed its gate. Workers follow within seconds."""
    with exits_on_errors():
        found, defined = _opened(registry, tasks)
        try:
            now = found.promote(
                id,
                defined,
                check=gate_of(found.gate_file),
                only=task or (),
                forced_because=force.strip(),
            )
        except NotPassed as error:
            raise ended(FAILED, f"{error}; evaluate it, or force it with a reason") from error
    Console().print(f"{id} serves {', '.join(now)}")


def candidate(
    id: Id, registry: RegistryFolder = None, task: Tasks = None, tasks: TasksFolder = None
) -> None:
    """Make a package of the registry the candidate again; `add` does it for a new one."""
    with exits_on_errors():
        found, defined = _opened(registry, tasks)
        now = found.nominate(id, defined, task or ())
    Console().print(f"{id} is a candidate for {', '.join(now)}")


def rollback(
    id: Id, registry: RegistryFolder = None, task: Tasks = None, tasks: TasksFolder = None
) -> None:
    """Take a package out of service: the previous package serves its tasks again."""
    with exits_on_errors():
        found, defined = _opened(registry, tasks)
        again = found.rollback(id, defined, task or ())
    for name, package in sorted(again.items()):
        Console().print(f"{package} serves {name} again")


def _opened(folder: Path | None, tasks: Path | None) -> tuple[Registry, Mapping[str, Task]]:
    settings = Settings().worker
    chosen = folder or settings.model_registry
    if chosen is None:
        raise RegistryError(
            "expected the folder of a registry: --registry or REVIEWMESH_WORKER__MODEL_REGISTRY"
        )
    return Registry(chosen), load_tasks(tasks or settings.task_definitions)


def _standing(registry: Registry) -> dict[str, list[str]]:
    """By package, such as `serving ner (forced)`."""
    standing: dict[str, list[str]] = {}
    for task in registry.tasks():
        try:
            aliases = registry.aliases(task)
        except RegistryError as error:
            complain(str(error))
            continue
        for name, entry in _entries(aliases):
            forced = " (forced)" if entry.gate == "forced" else ""
            standing.setdefault(entry.package, []).append(f"{name} {task}{forced}")
    return standing


def _entries(aliases: Aliases) -> Iterator[tuple[str, AliasEntry]]:
    for name in Aliases.model_fields:
        entry = getattr(aliases, name)
        if entry is not None:
            yield name, entry
