"""What both engines on vLLM share: a package behind one `Core`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reviewmesh_worker.engines.description import describe
from reviewmesh_worker.engines.interface import EngineLoad, TaskDescription
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm import ENGINE_NAME
from reviewmesh_worker.engines.vllm.core import Core
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks.definition import Task


class VllmEngine:
    """The part of the engine interface that does not depend on the kind of model.

    `labels` are, by task, those that the model answers with.
    """

    def __init__(
        self,
        package: Package,
        tasks: Mapping[str, Task],
        labels: Mapping[str, tuple[str, ...]],
        settings: VllmSettings,
    ) -> None:
        self._tasks = describe(package, tasks, labels, ENGINE_NAME)
        self._package = package
        self._settings = settings
        self._core: Core | None = None

    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        return self._tasks

    async def _start_core(self, model: str, *, encoder: bool, more: Mapping[str, Any]) -> Core:
        """vLLM with the files in the folder `model`; `more` are further engine arguments.

        Raises EngineLoadError.
        """
        manifest = self._package.manifest
        core = Core(
            model,
            self._settings,
            encoder=encoder,
            labels={"task": ",".join(sorted(self._tasks)), "model_version": manifest.version},
            more={"served_model_name": manifest.name, **more},
        )
        await core.start()
        self._core = core
        return core

    def check(self) -> None:
        if self._core is not None:
            self._core.check()

    def unavailable(self) -> str:
        return ""

    def load(self) -> EngineLoad:
        return self._core.load() if self._core else EngineLoad(0, 0, 0.0)

    async def close(self) -> None:
        if self._core is not None:
            await self._core.close()
