"""One version of a task is one definition: an edit without a new version is found here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reviewmesh_worker.packages.manifest import PackageError, TaskVersion

Known = tuple[str, Mapping[str, TaskVersion]]
"""Who has definitions of tasks, and their versions."""


def check_versions(tasks: Mapping[str, TaskVersion], known: Iterable[Known]) -> None:
    """Raises PackageError where a version of a task is known, with other definitions only."""
    by_task: dict[str, list[tuple[str, TaskVersion]]] = {name: [] for name in tasks}
    for who, versions in known:
        for name in tasks.keys() & versions.keys():
            if versions[name].version == tasks[name].version:
                by_task[name].append((who, versions[name]))
    for name, same in by_task.items():
        if same and tasks[name] not in [version for _, version in same]:
            who, other = same[0]
            raise PackageError(
                f"version {tasks[name].version} of the task {name} has the digest "
                f"{tasks[name].digest}, and in {who} the same version has {other.digest}: its "
                "definition was edited; raise `version` in its task.yaml, or undo the edit"
            )
