"""What a task is served by while packages come and go, with engines that do as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from reviewmesh_worker.engines.description import describe
from reviewmesh_worker.engines.interface import (
    UNBOUND,
    Bounds,
    EngineDead,
    EngineLoad,
    EngineLoadError,
    EngineMemoryError,
    ItemResult,
    SentimentOutput,
    TaskDescription,
)
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.packages.registry import Registry
from reviewmesh_worker.serving import deployment as module
from reviewmesh_worker.serving import metrics
from reviewmesh_worker.serving.deployment import Deployment, LoadedEngine, NotServing
from reviewmesh_worker.serving.package_selection import RegistryAliases
from reviewmesh_worker.tasks.definition import Task
from tests.packages import DEFINED, small_package, tampered

DEADLINE_S = 10.0
TASKS = tuple(DEFINED)
WEIGHTS = "weights.safetensors"
LABELS = {name: task.label_ids for name, task in DEFINED.items()}


class Machine:
    """Where engines run: how many fit, which do not load, and what became of each."""

    def __init__(self) -> None:
        self.room = 2
        self.broken: set[str] = set()
        self.hanging: set[str] = set()
        self.dead: set[str] = set()
        self.loaded: list[str] = []
        self.story: list[str] = []
        self.may_load = asyncio.Event()
        self.may_load.set()

    def open(self, package: Package, tasks: Mapping[str, Task]) -> ScriptedEngine:
        return ScriptedEngine(self, package, tasks)


class ScriptedEngine:
    def __init__(self, machine: Machine, package: Package, tasks: Mapping[str, Task]) -> None:
        self._machine = machine
        self._version = package.manifest.version
        self._tasks = describe(package, tasks, LABELS, "scripted")

    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        return self._tasks

    async def start(self) -> None:
        machine = self._machine
        machine.story.append(f"load {self._version}")
        await machine.may_load.wait()
        if self._version in machine.broken:
            raise EngineLoadError(f"{self._version} is broken")
        if len(machine.loaded) >= machine.room:
            raise EngineMemoryError(f"no room for {self._version}")
        machine.loaded.append(self._version)

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        return [ItemResult(SentimentOutput(self._version, {}))] * len(texts)

    def check(self) -> None:
        if self._version in self._machine.dead:
            raise EngineDead(self._version)

    def unavailable(self) -> str:
        return ""

    def load(self) -> EngineLoad:
        return EngineLoad(0, 0, 0.0)

    async def close(self) -> None:
        if self._version in self._machine.hanging:
            await asyncio.sleep(3600)
        self._machine.story.append(f"close {self._version}")
        if self._version in self._machine.loaded:
            self._machine.loaded.remove(self._version)


class SlowAliases(RegistryAliases):
    """Files are written while it is asked, one each time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.writes: list[Callable[[], None]] = []

    def state(self) -> object:
        if self.writes:
            self.writes.pop(0)()
        return super().state()


class World:
    """A registry with small@1 serving and small@2 and small@3 beside it, and a deployment."""

    def __init__(self, folder: Path, machine: Machine, **options: Any) -> None:
        self.machine = machine
        self.registry = Registry(folder / "registry")
        for version in "123":
            self.registry.add(small_package(folder / version, version).folder, DEFINED)
        self.promote("1")
        self.aliases = SlowAliases(self.registry.folder, DEFINED, ())
        self.deployment = Deployment(
            self.aliases,
            machine.open,
            structlog.get_logger(),
            **options,
        )
        self.changes: list[list[str]] = []
        self._before = swaps()

    def promote(self, version: str, *tasks: str) -> None:
        self.registry.promote(f"small@{version}", DEFINED, passes, tasks)

    def versions(self) -> dict[str, str]:
        return {about.task: about.model_version for about in self.deployment.descriptions()}

    def serves(self, version: str) -> bool:
        return self.versions() == dict.fromkeys(TASKS, version)

    def swaps(self) -> dict[str, float]:
        """By outcome, since this world began."""
        return {
            outcome: count - self._before[outcome]
            for outcome, count in swaps().items()
            if count != self._before[outcome]
        }

    async def on_change(self) -> None:
        self.changes.append([task for task in TASKS if self.deployment.is_serving(task)])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - of what it waits for, most has no event
                await asyncio.sleep(0.005)

    async def seen(self) -> None:
        """Until what the aliases say now was followed or refused."""
        state = self.aliases.state()
        await self.until(lambda: self.deployment._seen == state)


def passes(candidate: Package, serving: Package | None, tasks: Collection[str]) -> list[str]:
    return []


def swaps() -> dict[str, float]:
    return {
        outcome: REGISTRY.get_sample_value("reviewmesh_worker_swaps_total", {"outcome": outcome})
        or 0.0
        for outcome in ("beside", "drained", "refused", "failed")
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "SETTLE_S", 0.01)


def play(folder: Path, scenario: Callable[[World], Awaitable[None]], **options: Any) -> None:
    """Run a scenario with small@1 in service and the aliases watched."""

    async def run() -> None:
        world = World(folder, Machine(), **options)
        async with watched(world):
            await asyncio.wait_for(scenario(world), DEADLINE_S)

    asyncio.run(run())


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[None]:
    await world.deployment.start()
    watching = asyncio.create_task(world.deployment.watch(world.on_change))
    try:
        yield
        assert not watching.done()
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        await world.deployment.close()
        assert world.machine.loaded == [] or world.machine.hanging


def test_a_promoted_package_is_loaded_beside_and_switched_to_in_one_step(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert world.serves("1") and world.machine.story == ["load 1"]
        world.promote("2")
        seen = set()

        def promoted() -> bool:
            seen.add(tuple(world.versions().values()))
            return world.serves("2")

        await world.until(promoted)
        # Never some tasks of one and some of the other, never none.
        assert seen <= {("1",) * 3, ("2",) * 3}
        await world.until(lambda: world.machine.loaded == ["2"])
        assert world.machine.story == ["load 1", "load 2", "close 1"]
        assert world.swaps() == {"beside": 1}
        world.registry.rollback("small@2", DEFINED)
        await world.until(lambda: world.machine.loaded == ["1"])
        assert world.serves("1") and world.swaps() == {"beside": 2}
        assert all(serving == list(TASKS) for serving in world.changes)

    play(tmp_path, scenario)


def test_a_call_keeps_the_engine_that_it_started_with(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with world.deployment.lease("sentiment") as old:
            world.promote("2")
            await world.until(lambda: world.serves("2"))
            with world.deployment.lease("sentiment") as new:
                assert [await said(loaded) for loaded in (old, new)] == ["1", "2"]
            assert world.machine.loaded == ["1", "2"]
        await world.until(lambda: world.machine.loaded == ["2"])

    play(tmp_path, scenario)


async def said(loaded: LoadedEngine) -> str:
    (answer,) = await loaded.engine.infer("sentiment", ["text"])
    assert isinstance(answer.outcome, SentimentOutput)
    return answer.outcome.label


def test_tasks_of_one_package_share_an_engine(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.promote("2", "topic")
        await world.until(lambda: world.versions()["topic"] == "2")
        assert world.versions() == {"ner": "1", "topic": "2", "sentiment": "1"}
        world.promote("2", "ner")
        await world.until(lambda: world.versions()["ner"] == "2")
        world.promote("2")
        await world.until(lambda: world.machine.loaded == ["2"])
        assert world.machine.story == ["load 1", "load 2", "close 1"]

    play(tmp_path, scenario)


def test_draining_lets_go_of_the_old_one_first(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.machine.room = 1
        world.machine.may_load.clear()
        with world.deployment.lease("ner") as old:
            world.promote("2")
            await world.until(lambda: world.changes == [[]])
            with pytest.raises(NotServing, match="draining"), world.deployment.lease("ner"):
                pass
            assert world.machine.story == ["load 1"] and await said(old) == "1"
        await world.until(lambda: world.machine.story == ["load 1", "close 1", "load 2"])
        assert world.versions() == {}
        world.machine.may_load.set()
        await world.until(lambda: world.serves("2"))
        assert world.changes == [[], list(TASKS)] and world.swaps() == {"drained": 1}

    play(tmp_path, scenario, drain=True)


def test_a_promotion_that_is_being_written_is_followed_as_one(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.machine.room = 1
        world.aliases.writes = [partial(forge, world.registry, task, "") for task in TASKS]
        await world.until(lambda: world.serves("2"))
        assert world.machine.story == ["load 1", "close 1", "load 2"]

    play(tmp_path, scenario, drain=True)


def test_draining_waits_for_calls_no_longer_than_the_grace_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with world.deployment.lease("ner"):
            world.promote("2")
            await world.until(lambda: world.serves("2"))
        assert world.machine.story == ["load 1", "close 1", "load 2"]

    play(tmp_path, scenario, drain=True, grace_s=0.05)


def test_only_the_tasks_that_change_are_drained(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.promote("2", "topic")
        await world.until(lambda: world.versions()["topic"] == "2")
        # Its old engine stays for the others, so nothing was to be gained.
        assert world.changes == [list(TASKS)] * len(world.changes)
        world.machine.may_load.clear()
        world.promote("3", "topic")
        await world.until(lambda: world.machine.story[-1] == "load 3")
        assert world.versions() == {"ner": "1", "sentiment": "1"}
        world.machine.may_load.set()
        await world.until(lambda: world.versions().get("topic") == "3")
        assert world.machine.story == ["load 1", "load 2", "close 2", "load 3"]

    play(tmp_path, scenario, drain=True)


def test_where_two_do_not_fit_it_is_drained_after_all(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.machine.room = 1
        world.promote("2")
        await world.until(lambda: world.serves("2"))
        assert world.machine.story == ["load 1", "load 2", "close 2", "close 1", "load 2"]
        assert world.swaps() == {"drained": 1}

    play(tmp_path, scenario)


def test_what_an_earlier_change_left_with_calls_is_let_go_of_too(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with world.deployment.lease("ner"):
            world.promote("2")
            await world.until(lambda: world.serves("2"))
            assert world.machine.loaded == ["1", "2"]
            world.machine.room = 1
            world.promote("3")
            await world.until(lambda: world.serves("3"))
        assert sorted(world.machine.story[-3:-1]) == ["close 1", "close 2"]
        assert world.machine.story[-1] == "load 3"
        assert world.swaps() == {"beside": 1, "drained": 1}

    play(tmp_path, scenario, grace_s=0.05)


@pytest.mark.parametrize("drain", [False, True])
def test_what_does_not_load_leaves_the_old_one_serving(tmp_path: Path, drain: bool) -> None:
    async def scenario(world: World) -> None:
        world.machine.broken = {"2"}
        world.promote("2")
        await world.until(lambda: world.swaps() == {"failed": 1})
        await world.until(lambda: world.serves("1"))
        again = ["close 1", "load 2", "close 2", "load 1"] if drain else ["load 2", "close 2"]
        assert world.machine.story == ["load 1", *again]
        # It is tried again when the aliases change, and only then.
        world.machine.broken = set()
        world.registry.rollback("small@2", DEFINED)
        await world.seen()
        assert world.machine.story == ["load 1", *again]
        world.promote("2")
        await world.until(lambda: world.serves("2"))

    play(tmp_path, scenario, drain=drain)


def test_a_worker_that_can_serve_nothing_any_more_says_so(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.machine.broken = {"1", "2"}
        world.promote("2")
        await world.until(lambda: world.machine.story[-2:] == ["load 1", "close 1"])
        with pytest.raises(EngineDead, match="small@1 served and cannot be loaded again"):
            world.deployment.check()

    play(tmp_path, scenario, drain=True)


@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("damage", ["weights", "gate", "digest", "file"])
def test_what_is_off_in_the_registry_is_refused_before_anything_is_let_go_of(
    tmp_path: Path, damage: str, drain: bool
) -> None:
    async def scenario(world: World) -> None:
        if damage == "weights":
            world.promote("2")
            world.registry.rollback("small@2", DEFINED)
            await world.seen()
            tampered(world.registry.package("small@2").folder / "weights.safetensors")
        story = list(world.machine.story)
        for task in TASKS:
            forge(world.registry, task, damage)
        await world.seen()
        await world.until(lambda: world.swaps().get("refused", 0) >= 1)
        assert world.serves("1") and world.machine.story == story
        assert all(serving == list(TASKS) for serving in world.changes)

    play(tmp_path, scenario, drain=drain)


def forge(registry: Registry, task: str, damage: str) -> None:
    """An alias that nobody promoted to, written by hand, and what is off with it."""
    file = registry.folder / "aliases" / f"{task}.json"
    if damage == "file":
        file.write_text("{")
        return
    aliases = json.loads(file.read_text())
    aliases["serving"] |= {"package": "small@2", "digest": registry.package("small@2").digest}
    if damage == "gate":
        aliases["serving"]["gate"] = None
    elif damage == "digest":
        aliases["serving"]["digest"] = "sha256:" + "0" * 64
    file.write_text(json.dumps(aliases))


@pytest.mark.parametrize("damage", ["broken", "weights", "digest"])
def test_a_start_meanwhile_serves_what_served_before(tmp_path: Path, damage: str) -> None:
    async def scenario() -> None:
        world = World(tmp_path, Machine())
        world.promote("2", "ner", "topic")
        weights = world.registry.package("small@2").folder / "weights.safetensors"
        good = weights.read_bytes()
        if damage == "broken":
            world.machine.broken = {"2"}
        elif damage == "weights":
            tampered(weights)
        else:
            forge(world.registry, "ner", damage)
            forge(world.registry, "topic", damage)
        outcome = "failed" if damage == "broken" else "refused"
        async with watched(world):
            assert world.serves("1") and world.swaps()[outcome] >= 1
            assert world.machine.loaded == ["1"]
            # Mended it is tried again when the aliases change, as ever.
            world.machine.broken = set()
            weights.write_bytes(good)
            world.promote("3")
            await world.until(lambda: world.serves("3"))

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_a_start_with_nothing_that_can_serve_tells_of_both(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, Machine())
        world.promote("2")
        world.machine.broken = {"1", "2"}
        with pytest.raises(
            EngineLoadError, match="2 is broken; the previous model does not load either: 1 is brok"
        ):
            await world.deployment.start()
        await world.deployment.close()
        assert world.machine.loaded == []

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_at_the_start_what_is_off_is_an_error(tmp_path: Path) -> None:
    async def run(damage: Callable[[World], object], expected: str) -> None:
        world = World(tmp_path / expected.replace(" ", "-"), Machine())
        damage(world)
        with pytest.raises(EngineLoadError, match=expected):
            await world.deployment.start()
        await world.deployment.close()
        assert world.machine.loaded == []

    asyncio.run(run(lambda world: world.machine.broken.add("1"), "1 is broken"))
    asyncio.run(run(lambda world: forge(world.registry, "ner", "gate"), "passed a gate"))
    asyncio.run(
        run(
            lambda world: tampered(
                world.registry.package("small@1").folder / "weights.safetensors"
            ),
            "cut short or changed",
        )
    )


def test_an_engine_that_dies_ends_the_worker_only_while_it_serves(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(EngineDead), world.deployment.lease("ner"):
            world.promote("2")
            await world.until(lambda: world.serves("2"))
            raise EngineDead("the old one")
        world.deployment.check()
        with pytest.raises(EngineDead), world.deployment.lease("ner"):
            raise EngineDead("the new one")
        with pytest.raises(EngineDead, match="the new one"):
            world.deployment.check()

    play(tmp_path, scenario)


def test_a_check_finds_an_engine_that_died_unasked(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.machine.dead = {"1"}
        with pytest.raises(EngineDead):
            world.deployment.check()

    play(tmp_path, scenario)


@pytest.mark.parametrize("drain", [False, True])
def test_who_is_stopped_in_the_midst_of_a_load_lets_go_of_all(tmp_path: Path, drain: bool) -> None:
    async def scenario(world: World) -> None:
        world.machine.may_load.clear()
        world.promote("2")
        await world.until(lambda: world.machine.story[-1] == "load 2")

    async def run() -> None:
        world = World(tmp_path, Machine(), drain=drain)
        async with watched(world):
            await scenario(world)
        assert sorted(world.machine.story) == ["close 1", "close 2", "load 1", "load 2"]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_an_engine_that_does_not_close_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.05)

    async def scenario(world: World) -> None:
        world.machine.hanging = {"1"}
        world.promote("2")
        await world.until(lambda: world.serves("2"))
        await world.until(lambda: world.deployment.stuck)
        world.promote("3")
        await world.until(lambda: world.serves("3"))

    play(tmp_path, scenario)


def test_metrics_name_the_model_of_each_task(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert models() == dict.fromkeys(TASKS, "1")
        world.promote("2", "ner")
        await world.until(lambda: world.versions()["ner"] == "2")
        assert models() == dict.fromkeys(TASKS, "1") | {"ner": "2"}

    play(tmp_path, scenario)
    assert models() == {}


def models() -> dict[str, str]:
    return {
        sample.labels["task"]: sample.labels["model_version"]
        for family in metrics.MODEL.collect()
        for sample in family.samples
        if sample.labels["model"] == "small"
    }
