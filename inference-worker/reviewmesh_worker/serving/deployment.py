"""The engine that serves each task, and how it is replaced while calls come in.

A call leases the engine when it starts and keeps it until it ends, so its answers carry the lineage
of the model that made them. When the selection changes, the new package is verified, loaded and
warmed up beside the old one. Then its tasks are switched in one step, and the old engine is closed
after its last call. If memory does not hold both, the old engine is closed first, and calls for its
tasks are refused as draining until the new one serves.

If a package is refused or cannot be loaded, the old engine goes on serving, and the next change of
the selection is the next attempt. A worker that starts meanwhile serves the previous package:
otherwise a restarted worker could not serve until the registry is repaired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from reviewmesh_worker.engines.interface import (
    Engine,
    EngineDead,
    EngineLoadError,
    EngineMemoryError,
    TaskDescription,
)
from reviewmesh_worker.packages.manifest import Package, PackageError
from reviewmesh_worker.packages.reference import ReferenceError, read_reference
from reviewmesh_worker.packages.registry import RegistryError
from reviewmesh_worker.serving import metrics
from reviewmesh_worker.serving.languages import language_of
from reviewmesh_worker.serving.package_selection import PackageSelection
from reviewmesh_worker.serving.values import AnswerValues
from reviewmesh_worker.tasks.definition import Task

POLL_S: Final = 1.0
SETTLE_S: Final = 0.2
"""A promotion writes one file per task: wait until none changes, and read them together."""
SETTLE_TRIES: Final = 25
LOAD_TIMEOUT_S: Final = 1800.0
LAST_CALLS_S: Final = 120.0
"""The time for a replaced engine to finish its calls: the longest that a call of the mesh takes."""
CLOSE_TIMEOUT_S: Final = 10.0

OpenEngine = Callable[[Package, Mapping[str, Task]], Engine]
OnChange = Callable[[], Awaitable[None]]
_Change = tuple[Package, list[str]]


class NotServing(RuntimeError):
    """A task has no engine at the moment; another worker may have one."""


@dataclass(eq=False)
class LoadedEngine:
    """A loaded engine with the number of calls that use it."""

    package: Package
    engine: Engine
    values: Mapping[str, AnswerValues]
    """What it answers, by task."""
    calls: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    def is_of(self, package: Package) -> bool:
        return (self.package.id, self.package.digest) == (package.id, package.digest)


class Deployment:
    """To be used from one event loop."""

    def __init__(
        self,
        selection: PackageSelection,
        open_engine: OpenEngine,
        log: structlog.stdlib.BoundLogger,
        *,
        drain: bool = False,
        grace_s: float = 20,
    ) -> None:
        self._selection = selection
        self._open_engine = open_engine
        self._log = log
        self._drain = drain
        self._grace_s = grace_s
        self._serving: dict[str, LoadedEngine | None] = dict.fromkeys(selection.tasks)
        self._seen: object = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._gone = ""
        self._on_change: OnChange | None = None
        self.stuck = False
        """Whether an engine did not close: its threads may keep the process from exiting."""

    # -- for calls ---------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._serving)

    def is_serving(self, task: str) -> bool:
        loaded = self._serving[task]
        return loaded is not None and not loaded.engine.unavailable()

    def unavailable(self) -> str:
        """Why engines in service send calls elsewhere; empty when none does."""
        reasons = (loaded.engine.unavailable() for loaded in self._in_service())
        return "; ".join(filter(None, reasons))

    @contextmanager
    def lease(self, task: str) -> Iterator[LoadedEngine]:
        """The engine of a task for one call. Raises NotServing."""
        loaded = self._serving[task]
        if loaded is None:
            raise NotServing(f"draining: the model of {task} is being changed; try another worker")
        if reason := loaded.engine.unavailable():
            raise NotServing(f"{reason}; try another worker")
        loaded.calls += 1
        loaded.idle.clear()
        try:
            yield loaded
        except EngineDead as dead:
            # A replaced engine is closed anyway; the mesh retries its calls on another worker.
            if loaded in self._in_service():
                self._gone = str(dead)
            raise
        finally:
            loaded.calls -= 1
            if not loaded.calls:
                loaded.idle.set()

    def descriptions(self) -> list[TaskDescription]:
        """Of the tasks that are served at the moment."""
        return [loaded.engine.tasks[task] for task, loaded in self._serving.items() if loaded]

    def waiting(self) -> int:
        return sum(loaded.engine.load().waiting for loaded in self._in_service())

    def check(self) -> None:
        """Raises EngineDead when an engine in service died, or none can be loaded any more."""
        if self._gone:
            raise EngineDead(self._gone)
        for loaded in self._in_service():
            loaded.engine.check()

    # -- start, watch, close -----------------------------------------------------------------

    async def start(self) -> None:
        """Load the selected packages, else the previous ones. Raises EngineLoadError."""
        try:
            self._seen = await asyncio.to_thread(self._selection.state)
            for error, tasks in await self._start_with(self._selection.select, self.tasks):
                await self._start_with_previous(error, tasks)
        except OSError as error:
            raise EngineLoadError(str(error)) from error

    async def watch(self, on_change: OnChange) -> None:
        """Follow the selection until cancelled; `on_change` is called after every switch."""
        self._on_change = on_change
        while True:
            await asyncio.sleep(POLL_S)
            if await self._has_changed():
                await self._follow()

    async def close(self) -> None:
        """Close every engine, each within CLOSE_TIMEOUT_S."""
        for retiring in self._retiring:
            retiring.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        engines = self._in_service()
        for task in self._serving:
            self._put(task, None)
        for loaded in engines:
            await self._close(loaded.engine)

    async def _start_with(
        self, select: Callable[[str], Package], tasks: Iterable[str]
    ) -> list[tuple[Exception, list[str]]]:
        """Serve the selected packages; returns the tasks that failed and why. Raises OSError."""
        failed: list[tuple[Exception, list[str]]] = []
        wanted: list[tuple[Package, str]] = []
        for task in tasks:
            try:
                wanted.append((await asyncio.to_thread(select, task), task))
            except (PackageError, RegistryError) as error:
                failed.append((error, [task]))
        for package, together in _grouped(wanted):
            try:
                await self._verify(package, together)
                loaded = await self._load(package, together)
            except (PackageError, EngineLoadError) as error:
                failed.append((error, together))
            else:
                self._take(loaded, together)
        return failed

    async def _start_with_previous(self, error: Exception, tasks: Sequence[str]) -> None:
        """Raises EngineLoadError, with the first cause if nothing served before."""

        def previous(task: str) -> Package:
            package = self._selection.previous(task)
            if package is None:
                raise EngineLoadError(str(error)) from error
            return package

        for worse, _ in await self._start_with(previous, tasks):
            raise EngineLoadError(
                f"{error}; the previous model does not load either: {worse}"
            ) from worse
        self._keep_old("failed" if isinstance(error, EngineLoadError) else "refused", tasks, error)

    # -- follow the selection ----------------------------------------------------------------

    async def _has_changed(self) -> bool:
        try:
            state = await asyncio.to_thread(self._selection.state)
            if state == self._seen:
                return False
            for _ in range(SETTLE_TRIES):
                await asyncio.sleep(SETTLE_S)
                before, state = state, await asyncio.to_thread(self._selection.state)
                if state == before:
                    break
        except OSError as error:
            # A network share that is briefly away takes nothing out of service.
            self._log.warning("cannot read the aliases", reason=str(error))
            return False
        self._seen = state
        return True

    async def _follow(self) -> None:
        changes = await self._changes()
        if self._drain and changes:
            await self._swap_drained(changes)
            return
        for package, tasks in changes:
            try:
                loaded = await self._load(package, tasks)
            except EngineMemoryError as error:
                self._log.warning(
                    "no memory for both models, draining the old one first", reason=str(error)
                )
                await self._swap_drained([(package, tasks)])
            except EngineLoadError as error:
                self._keep_old("failed", tasks, error)
            else:
                await self._switch(loaded, tasks, "beside")

    async def _changes(self) -> list[_Change]:
        """The packages to switch to, verified, with their tasks."""
        wanted: list[tuple[Package, str]] = []
        for task, loaded in self._serving.items():
            try:
                package = await asyncio.to_thread(self._selection.select, task)
            except (PackageError, RegistryError, OSError) as error:
                self._keep_old("refused", [task], error)
                continue
            if loaded is None or not loaded.is_of(package):
                wanted.append((package, task))
        changes: list[_Change] = []
        for package, tasks in _grouped(wanted):
            try:
                await self._verify(package, tasks)
            except PackageError as error:
                self._keep_old("refused", tasks, error)
            else:
                changes.append((package, tasks))
        return changes

    async def _swap_drained(self, changes: Sequence[_Change]) -> None:
        """Close the engines that no task will use any more, then load the new ones."""
        changing = {task for _, tasks in changes for task in tasks}
        was = {
            task: loaded for task, loaded in self._serving.items() if loaded and task in changing
        }
        stays = {
            loaded for task, loaded in self._serving.items() if loaded and task not in changing
        }
        leaving = {loaded for loaded in was.values() if loaded not in stays}
        for task, loaded in was.items():
            if loaded in leaving:
                self._put(task, None)
        self._log.info("draining", tasks=sorted(changing))
        await self._changed()
        for loaded in leaving:
            await self._retire(loaded, self._grace_s)
        await self._retired(self._grace_s)
        for package, tasks in changes:
            try:
                loaded = await self._load(package, tasks)
            except EngineLoadError as error:
                self._keep_old("failed", tasks, error)
                again = [(was[task].package, task) for task in tasks if not self._serving[task]]
                await self._restore(_grouped(again))
            else:
                await self._switch(loaded, tasks, "drained")

    async def _restore(self, changes: Iterable[_Change]) -> None:
        """Load the previous packages again; if that fails, the worker ends."""
        for package, tasks in changes:
            try:
                loaded = await self._load(package, tasks)
            except EngineLoadError as error:
                self._gone = f"{package.id} served and cannot be loaded again: {error}"
                self._log.error("nothing to serve", tasks=tasks, reason=self._gone)
                return
            self._take(loaded, tasks)
            await self._changed()

    # -- one engine --------------------------------------------------------------------------

    async def _verify(self, package: Package, tasks: Iterable[str]) -> None:
        await asyncio.to_thread(
            package.verify, {task: self._selection.tasks[task] for task in tasks}
        )

    async def _load(self, package: Package, tasks: Iterable[str]) -> LoadedEngine:
        """Load and warm up, or reuse the engine in service with this package and these tasks."""
        for loaded in self._in_service():
            if loaded.is_of(package) and set(tasks) <= loaded.engine.tasks.keys():
                return loaded
        began = time.monotonic()
        fitting = package.fitting(self._selection.tasks)
        self._log.info("loading", package=package.id, tasks=sorted(fitting))
        engine = self._open_engine(package, fitting)
        try:
            await self._start(engine, package)
        except BaseException:
            await self._close(engine)
            raise
        seconds = time.monotonic() - began
        metrics.LOAD_SECONDS.observe(seconds)
        self._log.info("loaded", package=package.id, seconds=round(seconds, 2))
        return LoadedEngine(package, engine, await self._values(engine, package))

    async def _values(self, engine: Engine, package: Package) -> dict[str, AnswerValues]:
        try:
            reference = await asyncio.to_thread(read_reference, package)
        except ReferenceError as error:
            self._log.warning("its answers are compared with nothing", reason=str(error))
            reference = {}
        return {
            task: AnswerValues(about, reference.get(task, {}))
            for task, about in engine.tasks.items()
        }

    async def _start(self, engine: Engine, package: Package) -> None:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await engine.start()
                if package.manifest.languages:
                    # The first detection loads its model, which takes a second or more.
                    await asyncio.to_thread(language_of, "Warm words in a language")
        except EngineLoadError:
            raise
        except TimeoutError as error:
            message = f"{package.id} was not loaded within {LOAD_TIMEOUT_S:g} s"
            raise EngineLoadError(message) from error
        except MemoryError as error:
            raise EngineMemoryError(f"no memory for {package.id}") from error
        except Exception as error:
            raise EngineLoadError(f"{package.id}: {type(error).__name__}: {error}") from error

    async def _switch(self, loaded: LoadedEngine, tasks: Iterable[str], how: str) -> None:
        before = self._in_service()
        self._take(loaded, tasks)
        metrics.SWAPS.labels(how).inc()
        await self._changed()
        for old in before:
            if old not in self._in_service():
                retiring = asyncio.create_task(self._retire(old, LAST_CALLS_S))
                self._retiring.add(retiring)
                retiring.add_done_callback(self._retiring.discard)

    def _take(self, loaded: LoadedEngine, tasks: Iterable[str]) -> None:
        for task in tasks:
            self._put(task, loaded)
        self._log.info(
            "in service",
            tasks=sorted(tasks),
            package=loaded.package.id,
            digest=loaded.package.digest,
        )

    def _put(self, task: str, loaded: LoadedEngine | None) -> None:
        for one, value in ((self._serving[task], 0), (loaded, 1)):
            if one is not None:
                about = one.engine.tasks[task]
                labels = (task, about.engine, about.model, about.model_version, about.model_digest)
                if value:
                    metrics.MODEL.labels(*labels).set(1)
                    one.values[task].show()
                else:
                    metrics.MODEL.remove(*labels)
                    one.values[task].hide()
        self._serving[task] = loaded

    async def _retire(self, loaded: LoadedEngine, timeout_s: float) -> None:
        """Close an engine that is out of service after its last call or the timeout."""
        try:
            await asyncio.wait_for(loaded.idle.wait(), timeout_s)
        except TimeoutError:
            self._log.warning(
                "engine closed with calls in flight", package=loaded.package.id, calls=loaded.calls
            )
        finally:
            await self._close(loaded.engine)

    async def _retired(self, timeout_s: float) -> None:
        """Wait until engines that an earlier switch replaced have freed their memory."""
        if self._retiring:
            _, late = await asyncio.wait(self._retiring, timeout=timeout_s)
            for retiring in late:
                retiring.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _close(self, engine: Engine) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await engine.close()
        except TimeoutError:
            self.stuck = True
            self._log.error("an engine did not close in time", within_s=CLOSE_TIMEOUT_S)
        except Exception:  # noqa: BLE001 - an engine may raise anything; another one serves
            self._log.exception("closing an engine failed")

    def _keep_old(self, outcome: str, tasks: Sequence[str], error: Exception) -> None:
        metrics.SWAPS.labels(outcome).inc()
        self._log.error(
            "the previous model serves until the aliases change again",
            outcome=outcome,
            tasks=sorted(tasks),
            reason=str(error),
        )

    def _in_service(self) -> list[LoadedEngine]:
        return list(
            dict.fromkeys(loaded for loaded in self._serving.values() if loaded is not None)
        )

    async def _changed(self) -> None:
        if self._on_change is not None:
            await self._on_change()


def _grouped(wanted: Iterable[tuple[Package, str]]) -> list[_Change]:
    """Tasks of the same package together: they share an engine."""
    groups: dict[tuple[str, str], _Change] = {}
    for package, task in wanted:
        groups.setdefault((package.id, package.digest), (package, []))[1].append(task)
    return list(groups.values())
