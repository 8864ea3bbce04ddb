"""Three embedded brokers: everything lies on each of them, and any one may be away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from reviewmesh.avro import topics
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.kafka.replication import replicas_of
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.state import StackInfo
from tests.broker import embedded_stack, wait_until

TOPIC = "kept"
BROKERS = ("broker", "broker-2", "broker-3")


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedStack]:
    with embedded_stack(brokers=3) as embedded:
        yield embedded


@pytest.fixture
def running(own: EmbeddedStack) -> StackInfo:
    return own.info() or own.up(mesh=False)


def admin(info: StackInfo) -> AdminClient:
    return AdminClient({"bootstrap.servers": info.bootstrap_servers})


def publish(info: StackInfo, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": info.bootstrap_servers, "acks": "all"})
    producer.produce(TOPIC, value, partition=0)
    assert producer.flush(60) == 0


def values(info: StackInfo, number: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": info.bootstrap_servers, "group.id": "reader"})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    found = [message.value() for message in consumer.consume(number, 60)]
    consumer.close()
    return found


def in_sync(info: StackInfo) -> int:
    return len(admin(info).list_topics(TOPIC, 10).topics[TOPIC].partitions[0].isrs)


def test_records_outlive_any_one_broker_and_a_restart_of_all(
    own: EmbeddedStack, running: StackInfo
) -> None:
    client = admin(running)
    [made] = client.create_topics([NewTopic(TOPIC, 1)]).values()
    made.result(30)
    assert {process.name for process in own.ps()} == {*BROKERS, "registry"}
    topic = client.list_topics(TOPIC, 10).topics[TOPIC]
    assert sorted(topic.partitions[0].replicas) == [1, 2, 3]
    publish(running, b"all three")

    leader = BROKERS[topic.partitions[0].leader - 1]
    before = own.status_of(leader)
    assert before.pid is not None
    own.stop_process(leader)
    wait_until(lambda: own.status_of(leader).pid is None, 60, "it has stopped")
    publish(running, b"two are left")
    assert not own.health()[leader].ready

    assert own.down()
    # Without a number: as many as before, on the same ports.
    again = own.up(mesh=False)
    assert again.bootstrap_servers == running.bootstrap_servers
    assert values(again, 2) == [b"all three", b"two are left"]
    wait_until(lambda: in_sync(again) == 3, 60, "the one that was away has caught up")


def test_topics_get_three_replicas_while_a_broker_is_away_and_what_has_fewer_is_named(
    own: EmbeddedStack, running: StackInfo
) -> None:
    client, prefix = admin(running), "away."
    [made] = client.create_topics([NewTopic(f"{prefix}reviews.raw", 6, 1)]).values()
    made.result(30)
    own.stop_process("broker-3")
    try:
        wait_until(lambda: len(client.list_topics(timeout=10).brokers) == 2, 60, "two are left")
        topics.apply(
            {"bootstrap.servers": running.bootstrap_servers},
            SchemaRegistry(running.registry_url, timeout_s=60),
            prefix,
            3600,
        )
    finally:
        own.start_process("broker-3")

    found = client.list_topics(timeout=10).topics
    replicas = {
        name.removeprefix(prefix): replicas_of(topic)
        for name, topic in found.items()
        if name.startswith(prefix)
    }
    assert replicas.pop("reviews.raw") == 1
    assert set(replicas.values()) == {3}
    assert topics.replication_problems(client, prefix) == [f"{prefix}reviews.raw: 1 replica, not 3"]
    resource = ConfigResource(ResourceType.TOPIC, f"{prefix}reviews.accepted")
    options = client.describe_configs([resource])[resource].result(15)
    assert options["min.insync.replicas"].value == "2"
    wait_until(lambda: own.health()["broker-3"].ready, 60, "it is back")


def test_all_three_killed_at_once_come_back(own: EmbeddedStack, running: StackInfo) -> None:
    found = values(running, 2)
    for name in BROKERS:
        pid = own.status_of(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    publish(running, b"after the kill")

    assert values(running, 3) == [*found, b"after the kill"]
    wait_until(lambda: all(health.ready for health in own.health().values()), 60, "all are ready")
