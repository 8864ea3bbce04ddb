"""The tasks that an engine serves: their descriptions, and the check of a call's task."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reviewmesh_worker.engines.interface import EngineLoadError, TaskDescription
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks.definition import Task


def describe(
    package: Package,
    tasks: Mapping[str, Task],
    labels: Mapping[str, tuple[str, ...]],
    engine: str,
) -> dict[str, TaskDescription]:
    """By task; `labels` are those that the model answers with. Raises EngineLoadError."""
    for task in tasks.values():
        if labels.get(task.name) != task.label_ids:
            raise EngineLoadError(
                f"{package.folder}: the labels of {package.id} for {task.name} are "
                f"{list(labels.get(task.name, ()))}, and the task here has {list(task.label_ids)}; "
                "train a package for the task"
            )
    return {
        task.name: TaskDescription(
            task=task.name,
            labels=task.label_ids,
            engine=engine,
            model=package.manifest.name,
            model_version=package.manifest.version,
            model_digest=package.digest,
            prompt_version=task.version,
            languages=tuple(package.manifest.languages or ()),
        )
        for task in tasks.values()
    }


def check_task(task: str, tasks: Collection[str]) -> None:
    """Raises ValueError if the engine, which serves `tasks`, does not serve this one."""
    if task not in tasks:
        raise ValueError(f"expected one of {sorted(tasks)}, got the task {task!r}")
