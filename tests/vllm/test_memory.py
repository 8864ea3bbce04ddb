"""What vLLM says of a model that it cannot load, and what a worker makes of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog

from reviewmesh_worker.engines.interface import Engine, EngineLoadError, EngineMemoryError
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm.chat import VllmChatEngine
from reviewmesh_worker.engines.vllm.encoder import VllmEncoderEngine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.packages.registry import Registry
from reviewmesh_worker.serving import deployment as module
from reviewmesh_worker.serving.deployment import Deployment
from reviewmesh_worker.serving.package_selection import RegistryAliases
from reviewmesh_worker.tasks import SENTIMENT
from reviewmesh_worker.tasks.definition import Task, load_tasks
from tests.packages import DEFINED, cut_short, encoder_copy

SWAP_S = 600.0
ALL_OF_IT = VllmSettings(gpu_memory_utilization=1)
"""More than is free on any machine; what vLLM asks for on CPU in the same way as on a GPU."""


def load(engine: Engine) -> EngineLoadError:
    async def scenario() -> EngineLoadError:
        with pytest.raises(EngineLoadError) as refused:
            await engine.start()
        await engine.close()
        return refused.value

    return asyncio.run(scenario())


def test_a_cache_that_does_not_fit_is_a_want_of_memory(tiny_gemma: Path) -> None:
    refused = load(chat(tiny_gemma, VllmSettings(kv_cache_gib=1e6)))
    assert isinstance(refused, EngineMemoryError)
    assert "is less than requested memory for kv" in str(refused)


def test_a_broken_model_is_something_else_and_is_told_of(tiny_gemma: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_gemma, broken)
    cut_short(broken / "model.safetensors")
    refused = load(chat(broken, VllmSettings()))
    assert not isinstance(refused, EngineMemoryError)
    assert "SafetensorError" in str(refused)


def chat(folder: Path, settings: VllmSettings) -> VllmChatEngine:
    return VllmChatEngine(Package.open(folder), {SENTIMENT: load_tasks()[SENTIMENT]}, settings)


def test_where_vllm_has_no_memory_for_two_the_first_is_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    registry = Registry(tmp_path / "registry")
    for version in "12":
        registry.add(encoder_copy(tmp_path / version, version).folder, DEFINED)
    opened: list[VllmEncoderEngine] = []

    def open_engine(package: Package, tasks: Mapping[str, Task]) -> Engine:
        # Two would fit here: the second one is told to ask for too much.
        settings = ALL_OF_IT if len(opened) == 1 else VllmSettings()
        opened.append(VllmEncoderEngine(package, tasks, settings))
        return opened[-1]

    async def scenario() -> list[bool]:
        registry.promote("e5-reviews@1", DEFINED, lambda candidate, serving, tasks: [])
        aliases = RegistryAliases(registry.folder, DEFINED, ())
        deployment = Deployment(aliases, open_engine, structlog.get_logger())
        await deployment.start()
        served: list[bool] = []
        again = asyncio.Event()

        async def on_change() -> None:
            served.append(deployment.is_serving(SENTIMENT))
            if served[-1]:
                again.set()

        watching = asyncio.create_task(deployment.watch(on_change))
        try:
            registry.promote("e5-reviews@2", DEFINED, lambda candidate, serving, tasks: [])
            await asyncio.wait_for(again.wait(), SWAP_S)
            assert {about.model_version for about in deployment.descriptions()} == {"2"}
            return served
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await deployment.close()

    assert asyncio.run(scenario()) == [False, True]
    assert len(opened) == 3
