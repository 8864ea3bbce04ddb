"""The joiner's own pauses end also where the clock is set back, by an hour or by years."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from reviewmesh.clock import is_over
from reviewmesh.join.pipeline import PartitionJoin
from reviewmesh.join.stage import JoinContract, JoinStage, Queries
from reviewmesh.join.state import JoinWindows
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh_schemas.names import TASKS
from tests.unit.join.test_join import Partition
from tests.unit.join.test_stragglers import overtake, published, without_sentiment

YEARS = 70 * 365 * 86_400.0


class Ticking(JoinStage):
    """Counts the ticks of one partition."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.ticks = 0
        nothing = SimpleNamespace(reprocessed=None, enriched=None, results={})
        super().__init__(
            cast(JoinContract, nothing),
            Queries(*cast(Any, (None, None, None))),
            cast(DeadLetters, None),
            windows=JoinWindows(1, 1, 1),
            clock=lambda: self.now,
            log=structlog.get_logger(),
        )
        self._joins[0] = cast(PartitionJoin, SimpleNamespace(open_partials=0))
        self._reprocessed[0] = cast(Any, SimpleNamespace(go_on=lambda now: []))

    def _tick(self, partition: int, join: PartitionJoin, now: float) -> None:
        self.ticks += 1


@pytest.mark.parametrize("back_s", [0.0, 1.0, 3_600.0, YEARS])
def test_the_joiner_ticks_on_where_the_clock_is_set_back(back_s: float) -> None:
    stage = Ticking(YEARS)
    stage.poll()
    stage.now -= back_s
    for _ in range(10):
        stage.now += 1.0
        stage.poll()
    assert stage.ticks >= 10


@pytest.mark.parametrize(
    ("at", "now", "expected"),
    [(10, 9, False), (10, 8, False), (10, 10, True), (10, 11, True), (10, 7, True)],
)
def test_a_pause_is_over_at_its_end_or_before_it_can_have_begun(
    at: float, now: float, expected: bool
) -> None:
    assert is_over(at, now, pause_s=2) == expected


@pytest.mark.parametrize("back_s", [3_600.0, YEARS])
def test_a_straggler_comes_out_soon_where_the_clock_is_set_back(back_s: float) -> None:
    partition = Partition()
    partition.now = YEARS + 3_600
    offset = without_sentiment(partition)
    partition.lost["sentiment"].add(offset)
    overtake(partition, 65)
    partition.ask_enricher("sentiment")
    partition.now -= back_s
    for _ in range(2):
        partition.now += 1
        questions = partition.tick()
        assert questions.ends == {"sentiment"}, "the end that was known is of a time to come"
    for task in TASKS:
        partition.join.read_to_end(task, partition.now)
    partition.now += 1
    partition.tick()
    partition.commit()
    assert "slow" in published(partition)
