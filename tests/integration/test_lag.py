"""Measuring on the real broker: markers, aborts, gaps, expiry, groups that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.lag.groups import WatchedGroup
from reviewmesh.lag.meter import LagMeter, PartitionLag, Snapshot
from reviewmesh.lag.offsets import Broker
from reviewmesh.loop.ledger import CompletionLedger
from reviewmesh.settings import KafkaSettings, Settings
from tests.broker import TestStack, wait_until

LONG_AGO_S = 1_000
TOLERANCE_S = 2


@dataclass
class Topic:
    """One partition, one group that reads it, and the meter that watches the group."""

    servers: str
    name: str
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.admin: Any = AdminClient({"bootstrap.servers": self.servers})
        for created in self.admin.create_topics([NewTopic(self.name, 1)]).values():
            created.result(10)
        self.group = f"{self.name}.group"
        self.producer = Producer(
            {"bootstrap.servers": self.servers, "transactional.id": self.name, "linger.ms": 0}
        )
        self.producer.init_transactions(20)
        self.meter = self.watch(WatchedGroup(self.group, "", (BrokerPartition(self.name, 0),)))

    def watch(self, group: WatchedGroup) -> LagMeter:
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=self.servers))
        return LagMeter(Broker(settings), [group], lambda: self.now)

    def write(self, *ages_s: float, commit: bool = True) -> None:
        """One transaction with a record of each age; the marker takes an offset too."""
        self.begin(*ages_s)
        if commit:
            self.producer.commit_transaction(10)
        else:
            self.producer.abort_transaction(10)

    def begin(self, *ages_s: float) -> None:
        self.producer.begin_transaction()
        for age_s in ages_s:
            self.producer.produce(self.name, b"x", timestamp=int((self.now - age_s) * 1000))
        assert self.producer.flush(10) == 0

    def commit(self, offset: int, metadata: str = "", group: str = "") -> None:
        consumer: Any = Consumer(
            {"bootstrap.servers": self.servers, "group.id": group or self.group}
        )
        consumer.commit(
            offsets=[TopicPartition(self.name, 0, offset, metadata)], asynchronous=False
        )
        consumer.close()

    def row(self) -> PartitionLag:
        [row] = measured(self.meter).rows
        return row

    def wait_row(self, condition: Callable[[PartitionLag], bool], what: str) -> PartitionLag:
        """Markers of a transaction are written a moment after it is committed."""
        wait_until(lambda: condition(self.row()), 10, what)
        return self.row()

    def wait_new_row(self) -> PartitionLag:
        """Of a topic that was made anew and is empty; until its leader is known it has none."""

        def ends_at_zero() -> bool:
            snapshot = self.meter.measure()
            return not snapshot.problems and [row.end for row in snapshot.rows] == [0]

        wait_until(ends_at_zero, 20, "the topic is there again, and empty")
        return self.row()

    def seconds(self) -> float:
        return self.row().seconds(self.now)


def measured(meter: LagMeter) -> Snapshot:
    snapshot = meter.measure()
    assert snapshot.problems == ()
    return snapshot


@pytest.fixture
def topic(stack: TestStack, prefix: str) -> Iterator[Topic]:
    topic = Topic(stack.bootstrap_servers, f"{prefix}lag")
    # A broker that has just started may still look for its coordinators.
    wait_until(lambda: not topic.meter.measure().problems, 20, "a first measurement")
    yield topic
    topic.meter.close()


def test_seconds_are_the_age_of_the_first_record_that_is_not_committed(topic: Topic) -> None:
    topic.write(500, 400, 300)
    row = topic.wait_row(lambda row: row.end == 4, "three records and their marker")
    assert (row.lag, row.backlog) == (4, 4)
    assert topic.seconds() == pytest.approx(500, abs=0.01)
    topic.commit(1)
    assert topic.seconds() == pytest.approx(400, abs=0.01)
    topic.commit(0)
    assert topic.seconds() == pytest.approx(500, abs=0.01)
    topic.now += 60
    assert topic.seconds() == pytest.approx(560, abs=0.01)


def test_markers_and_aborted_records_are_no_backlog(topic: Topic) -> None:
    topic.write(500)
    topic.write(400, 300, commit=False)
    topic.write(200, commit=False)
    topic.commit(1)
    row = topic.wait_row(lambda row: row.end == 7 and row.backlog == 0, "nothing to read")
    assert row.lag == 6
    assert row.seconds(topic.now) == 0
    topic.write(100)
    row = topic.wait_row(lambda row: row.backlog > 0, "the next record is seen")
    assert row.seconds(topic.now) == pytest.approx(100, abs=0.01)
    topic.commit(8)
    row = topic.wait_row(lambda row: row.backlog == 0, "it is finished")
    assert row.seconds(topic.now) == 0


def test_what_is_finished_beyond_the_commit_is_no_backlog(topic: Topic) -> None:
    topic.write(*range(100, 90, -1))
    ledger = CompletionLedger(0)
    for offset in range(8):
        ledger.deliver(offset)
    for offset in (0, 3, 4, 6):
        ledger.finish(offset)
    commit = ledger.commit()
    topic.commit(commit.offset, commit.metadata)
    row = topic.wait_row(lambda row: row.end == 11, "ten records and their marker")
    assert (row.committed, row.lag) == (1, 10)
    assert row.backlog == 10 - 3
    assert row.seconds(topic.now) == pytest.approx(99, abs=0.01)


def test_expired_records_are_nobodys_backlog(topic: Topic) -> None:
    topic.write(500, 400, 300, 200)
    topic.commit(1)
    assert topic.wait_row(lambda row: row.end == 5, "all records").lag == 4
    [deleted] = topic.admin.delete_records([TopicPartition(topic.name, 0, 3)]).values()
    deleted.result(10)
    row = topic.row()
    assert (row.lag, row.backlog) == (2, 2)
    assert row.seconds(topic.now) == pytest.approx(200, abs=0.01)


def test_a_transaction_that_stays_open_is_lag_for_those_who_wait_behind_it(topic: Topic) -> None:
    topic.write(500)
    topic.commit(2)
    topic.wait_row(lambda row: row.lag == 0, "caught up")
    topic.begin(LONG_AGO_S, 10)
    assert topic.row().lag == 2
    assert topic.seconds() == pytest.approx(LONG_AGO_S, abs=0.01)
    topic.producer.abort_transaction(10)
    topic.wait_row(lambda row: row.backlog == 0, "an aborted transaction is nothing")
    assert topic.seconds() == 0


def test_groups_come_and_go(topic: Topic) -> None:
    name = f"someone else's {topic.name}"
    partitions = tuple(
        BrokerPartition(name, 0) for name in (topic.name, f"{topic.name} that is not there")
    )
    meter = topic.watch(WatchedGroup(name, "", partitions, reads_all=False))
    try:
        assert measured(meter).rows == ()
        topic.write(50, 40)
        topic.commit(1, "not a ledger", name)
        [row] = measured(meter).rows
        assert (row.group, row.topic, row.committed) == (name, topic.name, 1)
        assert row.seconds(topic.now) == pytest.approx(40, abs=0.01)
        topic.admin.delete_consumer_groups([name])[name].result(10)
        assert measured(meter).rows == ()
    finally:
        meter.close()


def test_a_group_that_is_set_back_and_a_topic_that_goes_away(topic: Topic) -> None:
    topic.write(50, 40)
    topic.commit(3)
    topic.wait_row(lambda row: row.backlog == 0 and row.end == 3, "caught up")
    offsets = ConsumerGroupTopicPartitions(topic.group, [TopicPartition(topic.name, 0, 0)])
    topic.admin.alter_consumer_group_offsets([offsets])[topic.group].result(10)
    assert topic.row().lag == 3
    assert topic.seconds() == pytest.approx(50, abs=0.01)
    topic.admin.delete_topics([topic.name])[topic.name].result(10)
    wait_until(lambda: topic.meter.measure().rows == (), 10, "no rows of a topic that is gone")
    [problem] = topic.meter.measure().problems
    assert topic.name in problem


def test_a_topic_made_anew_is_unread_from_its_beginning(topic: Topic) -> None:
    topic.write(50, 40, 30, 20)
    topic.commit(5)
    topic.wait_row(lambda row: row.backlog == 0 and row.end == 5, "caught up")
    topic.admin.delete_topics([topic.name])[topic.name].result(10)
    wait_until(lambda: topic.meter.measure().rows == (), 10, "no rows of a topic that is gone")
    for created in topic.admin.create_topics([NewTopic(topic.name, 1)]).values():
        created.result(10)
    topic.wait_new_row()
    # Kafka forgets a deleted topic's commits; a service that runs may still make one.
    topic.commit(5)
    row = topic.row()
    assert (row.lag, row.backlog, row.seconds(topic.now)) == (0, 0, 0)
    topic.write(300, 200)
    # Fewer than were committed of the old one: none of these offsets was read.
    row = topic.wait_row(lambda row: row.end == 3 and row.backlog > 0, "the new records are seen")
    assert (row.committed, row.lag, row.backlog) == (0, 3, 3)
    assert row.seconds(topic.now) == pytest.approx(300, abs=0.01)


def test_a_topic_made_anew_between_two_measurements(topic: Topic) -> None:
    topic.write(50, 40, 30, 20)
    topic.commit(0)
    topic.wait_row(lambda row: row.end == 5 and row.backlog == 5, "four records and their marker")
    topic.admin.delete_topics([topic.name])[topic.name].result(10)
    for created in topic.admin.create_topics([NewTopic(topic.name, 1)]).values():
        created.result(10)
    row = topic.wait_new_row()
    assert (row.lag, row.backlog, row.seconds(topic.now)) == (0, 0, 0)
