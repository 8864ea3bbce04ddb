"""An open-loop load on a scripted worker, by a clock of its own."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from reviewmesh.capacity.load import POLL_S, LoadStep, OpenLoop, Silent, arrivals
from reviewmesh.capacity.measuring import Measuring
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh_protos.inference.v1 import inference_pb2

LINEAGE = inference_pb2.Lineage(task="topic", model="scripted", model_version="7")
OBJECTIVE_S = 0.5


class World:
    """A clock, and one worker that answers one review after the other, `each_s` apart."""

    def __init__(self, each_s: float = 0.02) -> None:
        self.now = 1_000.0
        self.each_s = each_s
        self.free_at = 0.0
        self.stands_until = 0.0
        self.fails: Callable[[WorkItem], bool] = lambda item: False
        self.silent = False
        self.submitted: list[tuple[float, WorkItem]] = []
        self.cancelled: list[WorkItem] = []
        self._coming: list[tuple[float, int, WorkItem]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-4)

    def submit(self, items: Sequence[WorkItem]) -> None:
        for item in items:
            self.submitted.append((self.now, item))
            if self.silent:
                continue
            self.free_at = max(self.free_at, self.now, self.stands_until) + self.each_s
            heapq.heappush(self._coming, (self.free_at, next(self._numbers), item))

    def completed(self) -> list[tuple[WorkItem, Answer]]:
        done = []
        while self._coming and self._coming[0][0] <= self.now:
            item = heapq.heappop(self._coming)[2]
            error = "as scripted" if self.fails(item) else None
            done.append((item, Answer(None, error, 1, LINEAGE, None)))
        return done

    def cancel(self, withdrawn: Callable[[object], bool]) -> None:
        self.cancelled += [item for _, _, item in self._coming if withdrawn(item.token)]
        self._coming = [entry for entry in self._coming if not withdrawn(entry[2].token)]
        heapq.heapify(self._coming)
        self.free_at = self.now

    def waiting_for(self) -> str:
        return "no worker for task topic reachable" if self.silent else ""

    def loop(self) -> OpenLoop:
        return OpenLoop(
            self, ["good", "bad"], OBJECTIVE_S, random.Random(3), self.clock, self.sleep
        )


def test_arrivals_are_poissons_and_exactly_so_many() -> None:
    times = arrivals(50, 5_000, random.Random(1))
    assert times == sorted(times) and len(times) == 5_000
    assert 99 < times[-1] <= 100
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    # Exponential gaps are as wide as they are long; even ones would have no spread.
    assert 0.9 < spread / mean < 1.1


def test_a_load_that_the_worker_bears_holds() -> None:
    world = World()
    step = world.loop().step(25, 500)
    assert step.holds and (step.offered, step.answered, step.failed) == (500, 500, 0)
    assert 0.02 <= step.p50_s <= step.p95_s < OBJECTIVE_S
    assert not step.is_generators
    texts = [item.text for _, item in world.submitted]
    assert len(set(texts)) == 500, "a text that is sent twice is answered from a cache"


def test_reviews_are_sent_when_due_though_no_answer_comes() -> None:
    """The worker stands still for four seconds. A closed loop would send nothing then."""
    world = World(each_s=0.001)
    world.stands_until = world.now + 4
    loop = world.loop()
    step = loop.step(50, 500)
    times = [at - 1_000 for at, _ in world.submitted]
    # As many as were due until it was certain that the objective is missed.
    assert not step.holds and times[-1] > OBJECTIVE_S
    assert len(times) == pytest.approx(50 * times[-1], rel=0.3)
    assert step.generator_p95_s <= 2 * POLL_S


def test_latency_counts_from_when_a_review_was_due() -> None:
    """A stop of the generator makes reviews late that the worker answers at once."""
    world = World(each_s=0.0001)
    stopped = iter([True])

    def sleep(seconds: float) -> None:
        stops = world.now > 1_002 and next(stopped, False)
        world.now += 3 if stops else max(seconds, 1e-4)

    loop = OpenLoop(world, ["good"], OBJECTIVE_S, random.Random(3), world.clock, sleep)
    step = loop.step(20, 200)
    assert not step.holds
    assert step.is_generators


def test_too_high_a_rate_ends_early_and_withdraws_what_is_open() -> None:
    world = World()
    began = world.now
    step = world.loop().step(200, 4_000)
    assert not step.holds and step.p95_s == float("inf")
    assert world.now - began < 10
    assert world.cancelled
    assert world.submitted[-1][1].token == world.cancelled[0].token


def test_one_failed_answer_is_enough() -> None:
    world = World()
    world.fails = lambda item: "bad" in item.text
    step = world.loop().step(25, 500)
    assert not step.holds and step.failed >= 1 and step.failure == "as scripted"


def measured(
    world: World, within_s: float = 600, first: float | None = None
) -> tuple[LoadStep | None, Measuring]:
    seen: list[LoadStep] = []
    measuring = Measuring(world.loop(), 10, within_s, seen.append, world.clock)
    return measuring.highest(first), measuring


def test_the_highest_rate_is_just_below_what_the_worker_does() -> None:
    world = World()
    found, measuring = measured(world)
    assert found is not None and found.holds
    # 50 a second at most; with random arrivals the queue breaks the objective a little before.
    assert 38 < found.rate < 50
    assert found.offered == pytest.approx(found.rate * 20, abs=1)
    assert not measuring.is_lower_bound


def test_time_that_is_over_gives_a_lower_bound() -> None:
    found, measuring = measured(World(each_s=0.001), within_s=45, first=25)
    assert found is not None and found.rate == 400
    assert "--within-s" in measuring.why_bound()


def test_a_worker_that_fails_reviews_has_no_rate_and_is_told_why() -> None:
    world = World()
    world.fails = lambda item: item.offset > 20
    found, measuring = measured(world)
    assert found is None
    assert measuring.why_not() == "the worker fails reviews: as scripted"


def test_a_worker_slower_than_the_objective_has_no_rate() -> None:
    found, measuring = measured(World(each_s=0.7))
    assert found is None
    assert "one review alone takes 0.7" in measuring.why_not()


def test_no_worker_at_all_is_told_with_where_it_was_sought() -> None:
    world = World()
    world.silent = True
    began = world.now
    with pytest.raises(Silent, match="no worker for task topic reachable"):
        measured(world)
    assert world.now - began < 70
