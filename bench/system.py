"""What is measured: processes between a raw and an enriched topic, and the mesh as one of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.broker import TestStack
from tests.mesh import Mesh, Process


class System(Protocol):
    """Reads `<prefix>reviews.raw`, writes `<prefix>reviews.enriched`."""

    @property
    def prefix(self) -> str: ...

    def pids(self) -> dict[str, int]:
        """Process ids by name, the broker's not among them."""
        ...

    def report(self) -> str:
        """The ends of the logs, for when it does not work."""
        ...


class MeshSystem:
    """The mesh: one process per service, its workers with the engine that is named."""

    def __init__(
        self, stack: TestStack, folder: Path, engine: Sequence[str], workers_per_task: bool
    ) -> None:
        folder.mkdir(parents=True)
        self.mesh = Mesh(
            stack,
            f"b{uuid.uuid4().hex[:6]}.",
            folder,
            workers_per_task=workers_per_task,
            worker_command=list(engine),
        )

    @property
    def prefix(self) -> str:
        return self.mesh.prefix

    def pids(self) -> dict[str, int]:
        return pids_of(self.mesh.processes)

    def report(self) -> str:
        return self.mesh.report()


@contextmanager
def running_mesh(
    stack: TestStack, folder: Path, engine: Sequence[str], workers_per_task: bool = False
) -> Iterator[MeshSystem]:
    """Started and ready; ended when left."""
    system = MeshSystem(stack, folder, engine, workers_per_task)
    with system.mesh:
        system.mesh.start()
        yield system


def pids_of(processes: dict[str, Process]) -> dict[str, int]:
    return {
        name: process.popen.pid
        for name, process in processes.items()
        if process.popen is not None and process.popen.poll() is None
    }
