"""Whatever happens to a loop, each record comes out once and in order."""

from __future__ import annotations

from contextlib import suppress

import pytest
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, ENRICHED
from tests.scripted_kafka import Cluster, ScriptedConsumer
from tests.unit.loop.world import GROUP, PARTITIONS, PREFIX, Scenario, World

NO_ANSWER = KafkaError(KafkaError._TIMED_OUT, "no answer")
NOT_IN_TIME = KafkaError(KafkaError._TIMED_OUT, "no answer in time", False, True)
STALE = KafkaError(KafkaError.ILLEGAL_GENERATION, None, False, False, True)
# A call, what it raises, and whether it takes effect all the same.
FAILURES = (
    ("commit_transaction", NO_ANSWER, True),
    ("commit_transaction", NO_ANSWER, False),
    ("commit_transaction", NOT_IN_TIME, True),
    ("commit_transaction", STALE, False),
    ("send_offsets_to_transaction", NO_ANSWER, False),
    ("send_offsets_to_transaction", STALE, False),
    ("abort_transaction", NO_ANSWER, False),
    ("init_transactions", NO_ANSWER, False),
    ("committed", NO_ANSWER, False),
    ("offsets_for_times", NO_ANSWER, False),
    ("describe_topics", NO_ANSWER, False),
)
EVENTS = ("fence", "expel", "die", "other_joins", "other_leaves", "broker_blinks", "hold", "let_go")
# Records come to both partitions, a moment passes, something happens.
STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 12), min_size=PARTITIONS, max_size=PARTITIONS),
        st.sampled_from([0.0, 0.02, 0.04, 0.06, 0.3, 1.5]),
        st.sampled_from([*EVENTS, *FAILURES]),
    ),
    min_size=3,
    max_size=12,
)
Step = tuple[list[int], float, str | tuple[str, KafkaError, bool]]


OUT = PREFIX + ENRICHED
REFUSED = KafkaError(KafkaError.INVALID_RECORD)


def is_refused(value: bytes | str) -> bool:
    """The output of some records is never taken: they become dead letters."""
    return str(value).strip("b'").endswith("7")


class Died(BaseException):
    """The process was killed: nothing of it reaches the broker any more."""


class Faults:
    """Plays a list of actions over as many lives of the process as it takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: list[Step]) -> None:
        self.monkeypatch = monkeypatch
        self.left = list(steps)
        self.published: list[list[str]] = [[] for _ in range(PARTITIONS)]
        self.world = World(monkeypatch)
        self.cluster: Cluster = self.world.cluster
        self.cluster.refuse = lambda topic, value: (
            REFUSED if topic == OUT and is_refused(value or b"") else None
        )
        self.others: list[ScriptedConsumer] = []

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
            counts, seconds, event = self.left.pop(0)
            for partition, count in enumerate(counts):
                self.publish(partition, count)
            yield world.after(seconds)
            if isinstance(event, str):
                yield from getattr(self, event)()
            else:
                self.cluster.fail(*event[:2], applied=event[2])
        world.stage.holds = False
        self.cluster._failures.clear()
        yield from self.other_leaves()
        for partition in range(PARTITIONS):
            yield world.until_read(partition)

    def publish(self, partition: int, count: int) -> None:
        known = self.published[partition]
        values = [f"{partition}-{len(known) + number}" for number in range(count)]
        known += values
        self.world.publish(*values, partition=partition)

    def hold(self) -> Scenario:
        self.world.stage.holds = True
        yield self.world.after(0)

    def let_go(self) -> Scenario:
        self.world.stage.holds = False
        yield self.world.after(0)

    def fence(self) -> Scenario:
        self.cluster.fence_producers()
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
            self.others.pop().close()
        yield self.world.after(0)

    def broker_blinks(self) -> Scenario:
        self.cluster.away = True
        yield self.world.after(0.5)
        self.cluster.away = False
        yield self.world.after(0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(STEPS)
def test_every_record_comes_out_once_and_in_order(steps: list[Step]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        faults = Faults(monkeypatch, steps)
        faults.run()
        for partition, published in enumerate(faults.published):
            wanted = [value for value in published if not is_refused(value)]
            assert faults.world.out(partition) == wanted
            letters = faults.world.out(partition, DEAD_LETTER)
            assert len(letters) == len(published) - len(wanted)
