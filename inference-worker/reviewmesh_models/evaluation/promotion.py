"""A package's report against the gate of a registry, as `Registry.promote` asks for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from reviewmesh_models.evaluation.gate import GateError, check_gate, read_gate
from reviewmesh_models.evaluation.report import ReportError, TaskMade, read_report
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.packages.registry import PackageCheck


def gate_of(gate_file: Path) -> PackageCheck:
    """The rules of a file, or those of the project where there is no such file."""

    def failures(candidate: Package, serving: Package | None, tasks: Collection[str]) -> list[str]:
        try:
            result = check_gate(
                read_report(candidate.folder),
                candidate.digest,
                tasks=made_for(candidate, tasks),
                gate=read_gate(gate_file if gate_file.is_file() else None),
                serving=None if serving is None else serving.digest,
            )
        except (ReportError, GateError) as error:
            return [str(error)]
        return result.failures

    return failures


def made_for(package: Package, tasks: Iterable[str]) -> dict[str, TaskMade]:
    """The definitions that a package was made for, by task."""
    made = package.manifest.tasks
    return {task: TaskMade(version=made[task].version, digest=made[task].digest) for task in tasks}
