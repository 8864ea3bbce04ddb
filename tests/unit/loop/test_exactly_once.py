"""Whatever happens to a loop, each record comes out once and in order."""

from __future__ import annotations

from contextlib import suppress

import pytest
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh_schemas.names import ACCEPTED
from tests.scripted_kafka import Cluster
from tests.unit.loop.world import GROUP, PARTITIONS, PREFIX, Scenario, World

CALLS = (
    "begin_transaction",
    "send_offsets_to_transaction",
    "commit_transaction",
    "abort_transaction",
    "init_transactions",
    "committed",
    "get_watermark_offsets",
    "describe_topics",
)
ERRORS = (
    KafkaError(KafkaError._TIMED_OUT, "no answer"),
    KafkaError(KafkaError._TIMED_OUT, "no answer in time", False, True),
    KafkaError(KafkaError.ILLEGAL_GENERATION, None, False, False, True),
)
# A call that needs its transaction to be aborted is none of these.
NEVER_ABORTABLE = ("abort_transaction", "init_transactions", "committed", "get_watermark_offsets")

FAILURE = st.tuples(
    st.just("fail"), st.sampled_from(CALLS), st.sampled_from(range(len(ERRORS))), st.booleans()
)
ACTIONS = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, PARTITIONS - 1), st.integers(1, 12)),
    st.tuples(st.just("wait"), st.sampled_from([0.02, 0.1, 1.5])),
    st.tuples(st.just("hold"), st.booleans()),
    FAILURE,
    st.sampled_from(
        [("fence",), ("expel",), ("die",), ("other joins",), ("other leaves",), ("broker blinks",)]
    ),
)


class Died(BaseException):
    """The process was killed: nothing of it reaches the broker any more."""


class Faults:
    """Plays a list of actions over as many lives of the process as it takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, actions: list[tuple[object, ...]]) -> None:
        self.monkeypatch = monkeypatch
        self.left = list(actions)
        self.published: list[list[str]] = [[] for _ in range(PARTITIONS)]
        self.world = World(monkeypatch)
        self.cluster: Cluster = self.world.cluster
        self.others: list[object] = []

    def run(self) -> None:
        while True:
            with suppress(Died):
                self.world.play(self.scenario())
                return
            self.cluster.away = False
            self.world = World(self.monkeypatch, self.cluster)

    def scenario(self) -> Scenario:
        world = self.world
        while self.left:
            name, *details = self.left.pop(0)
            yield from getattr(self, str(name).replace(" ", "_"))(*details)
        world.stage.holds = False
        self.cluster._failures.clear()
        yield from self.other_leaves()
        for partition in range(PARTITIONS):
            yield world.until_read(partition)

    def publish(self, partition: int, count: int) -> Scenario:
        known = self.published[partition]
        values = [f"{partition}-{len(known) + number}" for number in range(count)]
        known += values
        self.world.publish(*values, partition=partition)
        yield self.world.after(0)

    def wait(self, seconds: float) -> Scenario:
        yield self.world.after(seconds)

    def hold(self, holds: bool) -> Scenario:
        self.world.stage.holds = holds
        yield self.world.after(0)

    def fail(self, call: str, error: int, applied: bool) -> Scenario:
        if ERRORS[error].txn_requires_abort() and call in NEVER_ABORTABLE:
            error = 0
        self.cluster.fail(call, ERRORS[error], applied=applied and call == "commit_transaction")
        yield self.world.after(0)

    def fence(self) -> Scenario:
        for name in list(self.cluster.epochs):
            self.cluster.producer({"transactional.id": name}).init_transactions()
        yield self.world.after(0)

    def expel(self) -> Scenario:
        consumer = self.world.consumer
        if consumer in self.cluster.groups[GROUP].members:
            self.cluster.expel(consumer)
        yield self.world.after(0)

    def die(self) -> Scenario:
        self.cluster.away = True
        raise Died
        yield  # pragma: no cover

    def other_joins(self) -> Scenario:
        if not self.others:
            options = {"group.id": GROUP, "group.instance.id": "1", "error_cb": lambda error: None}
            other = self.cluster.consumer(options)
            other.subscribe([PREFIX + ACCEPTED])
            other.poll(0)
            self.others.append(other)
        yield self.world.after(0.1)

    def other_leaves(self) -> Scenario:
        while self.others:
            self.others.pop().close()  # type: ignore[attr-defined]
        yield self.world.after(0)

    def broker_blinks(self) -> Scenario:
        self.cluster.away = True
        yield self.world.after(0.5)
        self.cluster.away = False
        yield self.world.after(0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(ACTIONS, min_size=4, max_size=16))
def test_every_record_comes_out_once_and_in_order(actions: list[tuple[object, ...]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        faults = Faults(monkeypatch, actions)
        faults.run()
        for partition, published in enumerate(faults.published):
            assert faults.world.out(partition) == published
