"""Selects the package that serves each task: a fixed one, or the one that a registry's alias names.

A selection reads and checks, it loads nothing. `state` is cheap enough to poll every second; call
`select` again only when it has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.engines.settings import OpenAISettings
from reviewmesh_worker.packages.manifest import Package, PackageError
from reviewmesh_worker.packages.provider import provider_package
from reviewmesh_worker.packages.registry import Registry, RegistryError
from reviewmesh_worker.serving.settings import Settings
from reviewmesh_worker.tasks.definition import Task, TaskError, load_tasks


class PackageSelection(Protocol):
    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks to serve; a package that was made for another version of one, and carries that,
        serves it in that version."""
        ...

    def state(self) -> object:
        """Equal to the last one as long as nothing has changed. Raises OSError."""
        ...

    def select(self, task: str) -> Package:
        """The package to serve; its files are not verified. Raises PackageError, RegistryError or
        OSError."""
        ...

    def previous(self, task: str) -> Package | None:
        """The package that served before, if any. Raises as `select`."""
        ...


class FixedPackage:
    """One package in a folder, for all tasks; it does not change while it is served."""

    def __init__(self, folder: Path, defined: Mapping[str, Task], named: Sequence[str]) -> None:
        self._package = Package.open(folder)
        self._package.verify_tasks(defined)
        served = self._package.fitting(defined)
        self.tasks = _picked(named, served, f"{self._package.id} in {folder}")

    def state(self) -> object:
        return self._package.digest

    def select(self, task: str) -> Package:
        return self._package

    def previous(self, task: str) -> Package | None:
        return None


class RegistryAliases:
    """The packages that a registry's aliases name as serving, or as candidate, task by task."""

    def __init__(
        self,
        folder: Path,
        defined: Mapping[str, Task],
        named: Sequence[str],
        alias: Literal["serving", "candidate"] = "serving",
    ) -> None:
        self._registry = Registry(folder)
        self._alias = alias
        self.tasks = _picked(named, defined, "the folder of task definitions")

    def state(self) -> object:
        return tuple(self._registry.raw_aliases(task) for task in self.tasks)

    def select(self, task: str) -> Package:
        if self._alias == "candidate":
            return self._fitting(self._registry.resolve_candidate(task).package, task)
        return self._fitting(self._registry.resolve(task).package, task)

    def previous(self, task: str) -> Package | None:
        if self._alias == "candidate":
            return None
        before = self._registry.resolve_previous(task)
        return None if before is None else self._fitting(before.package, task)

    def _fitting(self, package: Package, task: str) -> Package:
        if task not in package.manifest.tasks:
            raise RegistryError(
                f"{package.id} is the alias {self._alias} of {task}, but was made for "
                f"{', '.join(sorted(package.manifest.tasks))}; promote a package for {task}"
            )
        package.verify_tasks({task: self.tasks[task]})
        return package


class ProviderModel:
    """The model of a provider, for tasks as they are defined here; it does not change."""

    def __init__(
        self, settings: OpenAISettings, defined: Mapping[str, Task], named: Sequence[str]
    ) -> None:
        self.tasks = _picked(named, defined, "the folder of task definitions")
        self._package = provider_package(
            settings.model,
            self.tasks,
            {
                "base_url": settings.base_url,
                "provider": settings.provider_name,
                "temperature": settings.temperature,
                "max_completion_tokens": settings.max_completion_tokens,
                "max_text": settings.max_text,
            },
        )

    def state(self) -> object:
        return self._package.digest

    def select(self, task: str) -> Package:
        return self._package

    def previous(self, task: str) -> Package | None:
        return None


def selection_of(settings: Settings) -> PackageSelection:
    """Raises EngineLoadError."""
    worker = settings.worker
    try:
        defined = load_tasks(worker.task_definitions)
        if worker.engine == "openai":
            return ProviderModel(settings.openai, defined, worker.tasks)
        if worker.model_registry is not None:
            return RegistryAliases(worker.model_registry, defined, worker.tasks, worker.alias)
        return FixedPackage(worker.model, defined, worker.tasks)
    except (PackageError, RegistryError, TaskError) as error:
        raise EngineLoadError(str(error)) from error


def _picked(named: Collection[str], there: Mapping[str, Task], whose: str) -> Mapping[str, Task]:
    if foreign := set(named) - there.keys():
        raise PackageError(
            f"{whose} has the tasks {', '.join(sorted(there))}, and REVIEWMESH_WORKER__TASKS names "
            f"{', '.join(sorted(foreign))} besides; take that out, or name what has it"
        )
    return {name: task for name, task in there.items() if not named or name in named}
