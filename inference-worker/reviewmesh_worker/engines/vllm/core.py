"""Runs vLLM: an `AsyncLLM`, whose engine is a process of its own, and its statistics.

The only module that starts vLLM. vLLM is imported late: the import takes seconds and reads the
environment.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry

from reviewmesh_worker.engines.interface import (
    EngineDead,
    EngineLoad,
    EngineLoadError,
    EngineMemoryError,
    ItemFailure,
)
from reviewmesh_worker.engines.lanes import Lane, due
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm import causes
from reviewmesh_worker.engines.vllm.arguments import engine_arguments
from reviewmesh_worker.engines.vllm.causes import Cause
from reviewmesh_worker.engines.vllm.stats import ENGINE_METRICS, EngineStats, stat_logger

T = TypeVar("T")

_ENVIRONMENT: Final = {
    # Nothing is fetched from a hub and nothing is reported: a model is a folder on this machine.
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    # This process has threads (gRPC's) that do not survive a fork.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_CPU_ENVIRONMENT: Final = {
    # The first request with logprobs would compile for 12 to 18 s.
    "TORCHDYNAMO_DISABLE": "1",
    # By default glibc's malloc returns a step's memory to the kernel and faults it in again, page
    # by
    # page, for the next: up to a quarter of the model's time. 32 MiB is glibc's maximum.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}


class Core:
    """One model in vLLM. To be used from one event loop."""

    def __init__(
        self,
        model: str,
        settings: VllmSettings,
        *,
        encoder: bool,
        labels: Mapping[str, str],
        more: Mapping[str, Any],
    ) -> None:
        """`labels` are put on vLLM's metrics, `more` are further engine arguments."""
        self._model = model
        self._settings = settings
        self._encoder = encoder
        self._more = more
        self._llm: Any = None
        self._numbers = itertools.count()
        self._stats = EngineStats()
        self._registry = CollectorRegistry()
        self._labels = labels

    @property
    def llm(self) -> Any:
        """The `AsyncLLM`. Raises EngineDead before `start` and after `close`."""
        if self._llm is None:
            raise EngineDead("the engine does not run")
        return self._llm

    async def start(self) -> None:
        """Raises EngineLoadError, EngineMemoryError where vLLM finds too little memory free."""
        with causes.told() as told:
            try:
                self._llm = await _in_daemon_thread(self._build)
            # vLLM raises exceptions of many types for failures of its processes.
            except Exception as error:
                known = told()
                if memory := next(filter(Cause.is_memory, known), None):
                    raise EngineMemoryError(f"no memory for {self._model}: {memory}") from error
                cause = known[0] if known else f"{type(error).__name__}: {error}"
                raise EngineLoadError(
                    f"vLLM cannot load {self._model}: {cause}; see its log above"
                ) from error
        ENGINE_METRICS.add(self._registry, self._labels)

    def _build(self) -> Any:
        arguments = prepare(self._settings, self._encoder) | dict(self._more)
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=self._model,
                max_num_queued_reqs=self._settings.max_waiting,
                **arguments,
            ),
            stat_loggers=[stat_logger(self._registry, self._stats)],
        )

    async def pool(self, ids: Sequence[int], task: str, lane: Lane) -> Any:
        """The pooled output of one sequence, a tensor on the CPU, or ItemFailure.

        Raises EngineDead; cancelling it aborts the request.
        """
        from vllm import PoolingParams

        prompt = _ready(ids)
        pooling = PoolingParams(task=task)
        output = await _last(
            self.llm.encode(prompt, pooling, self._next_id(), priority=self._priority(lane))
        )
        return output if isinstance(output, ItemFailure) else output.outputs.data

    async def generate(self, ids: Sequence[int], sampling: Any, lane: Lane) -> Any:
        """vLLM's `RequestOutput` of one prompt, or ItemFailure.

        Raises EngineDead; cancelling it aborts the request.
        """
        prompt = _ready(ids)
        return await _last(
            self.llm.generate(prompt, sampling, self._next_id(), priority=self._priority(lane))
        )

    def check(self) -> None:
        if self._llm is not None and self._llm.errored:
            raise EngineDead("vLLM's engine process ended; see its log above")

    def load(self) -> EngineLoad:
        return self._stats.load

    async def close(self) -> None:
        ENGINE_METRICS.remove(self._registry)
        # Dropped now: at the interpreter's exit its `__del__` would log an error.
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)

    def _priority(self, lane: Lane) -> int:
        """vLLM serves the lowest first, and accepts values other than 0 only with its policy
        `priority`."""
        if self._settings.scheduling_policy == "fcfs":
            return 0
        return int(due(lane, time.monotonic()) * 1000)

    def _next_id(self) -> str:
        return str(next(self._numbers))


async def _in_daemon_thread(run: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, but the process can exit without waiting for it."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    arguments = (loop, outcome, run)
    threading.Thread(target=_settle, args=arguments, name="vllm-loading", daemon=True).start()
    return await outcome


def _settle(
    loop: asyncio.AbstractEventLoop, outcome: asyncio.Future[T], run: Callable[[], T]
) -> None:
    settle: Callable[[], None]
    try:
        settle = partial(outcome.set_result, run())
    except BaseException as raised:  # noqa: BLE001 - it is raised where it is awaited
        settle = partial(outcome.set_exception, raised)
    # The loop may be closed when nobody waits any more.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_unless_done, outcome, settle)
    # vLLM keeps references to the frames that built it, and so to their local variables.
    del outcome, settle


def _unless_done(outcome: asyncio.Future[T], settle: Callable[[], None]) -> None:
    if not outcome.done():
        settle()


def prepare(settings: VllmSettings, encoder: bool) -> dict[str, Any]:
    """Set this process's environment up for vLLM; gives the engine arguments for its machine.

    Raises EngineLoadError.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        raise EngineLoadError(
            f"the vllm engine needs the package {error.name}: install requirements/vllm.txt"
        ) from error
    device = device_of(current_platform) if settings.device == "auto" else settings.device
    if device == "cpu":
        for name, value in _CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    return engine_arguments(settings, device, encoder)


def _ready(ids: Sequence[int]) -> Any:
    """Tokens in vLLM's form for tokenized prompts, which skips its own tokenizing thread."""
    from vllm.inputs import tokens_input

    return tokens_input(list(ids))


async def _last(outputs: AsyncIterator[Any]) -> Any:
    """The final output of a request, or ItemFailure. Raises EngineDead."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        return [output async for output in outputs][-1]
    except EngineDeadError as error:
        raise EngineDead("vLLM's engine process ended; see its log above") from error
    except VLLMClientError as error:
        return ItemFailure("INVALID_ARGUMENT", str(error), retryable=False)
    except GracefulHTTPError as error:
        # The queue is full.
        return ItemFailure("RESOURCE_EXHAUSTED", str(error), retryable=True)
    except EngineGenerateError as error:
        return ItemFailure("INTERNAL", f"{error}: {error.__cause__}", retryable=True)


def device_of(platform: Any) -> str:
    """The name in `_DEFAULTS` for the machine that vLLM detected."""
    if platform.is_cpu():
        return "cpu"
    name = str(platform.get_device_name()).lower()
    return next((known for known in ("h200", "h100", "a100", "l4") if known in name), "a100")
