"""The `onnx` engine: the bundled encoder behind the engine interface."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from reviewmesh_worker.engines.batching import HANGS_AFTER_S, Batcher
from reviewmesh_worker.engines.description import check_task, describe
from reviewmesh_worker.engines.encoder.config import read_config
from reviewmesh_worker.engines.encoder.windows import TaskOutputs
from reviewmesh_worker.engines.interface import (
    NOT_STARTED,
    UNBOUND,
    Bounds,
    EngineDead,
    EngineLoad,
    ItemFailure,
    ItemResult,
    TaskDescription,
)
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.engines.settings import EngineSettings
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks.definition import Task

ENGINE_NAME: Final = "onnx"
_THREADS: Final = 2
_WARM_UP: Final = ("Warm", "Warm words of about the length that a review has, twice over.")


class OnnxEngine:
    """One encoder pass answers every task; see `Batcher` for how calls share it.

    The package's settings are read at once, the weights by `start`.
    """

    def __init__(
        self, package: Package, tasks: Mapping[str, Task], threads: int = _THREADS
    ) -> None:
        labels = read_config(package.folder).labels.by_task()
        self._tasks = describe(package, tasks, labels, ENGINE_NAME)
        self._folder = package.folder
        self._threads = threads
        self._batcher: Batcher[TaskOutputs] | None = None

    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        return self._tasks

    async def start(self) -> None:
        reader = await asyncio.to_thread(OnnxReader, self._folder, self._threads)
        await asyncio.to_thread(reader.read, _WARM_UP)
        self._batcher = Batcher(reader.read)

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        check_task(task, self._tasks)
        if self._batcher is None:
            return [NOT_STARTED] * len(texts)
        readings = await asyncio.gather(*(self._batcher.submit(text, lane) for text in texts))
        return [
            ItemResult(reading if isinstance(reading, ItemFailure) else reading.output(task))
            for reading in readings
        ]

    def check(self) -> None:
        """The engine runs in this process; it counts as dead when a batch hangs."""
        if self._batcher is not None and self._batcher.hangs:
            raise EngineDead(f"a batch has not returned for over {HANGS_AFTER_S:g} s")

    def unavailable(self) -> str:
        return ""

    def load(self) -> EngineLoad:
        if self._batcher is None:
            return EngineLoad(running=0, waiting=0, kv_usage=0.0)
        return EngineLoad(self._batcher.running, self._batcher.waiting, kv_usage=0.0)

    async def close(self) -> None:
        if self._batcher is not None:
            await self._batcher.close()


def open_engine(
    package: Package, tasks: Mapping[str, Task], settings: EngineSettings
) -> OnnxEngine:
    return OnnxEngine(package, tasks)
