"""What operators do to topics and groups by hand, live and while the service is down."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from reviewmesh.kafka.partitioning import partition_of
from tests.broker import TestStack, wait_until
from tests.mesh import PARTITIONS, Mesh, assert_exactly_once, review, reviews
from tests.nightly import but_nightly

SOON_S = 30


@pytest.fixture
def mesh(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    with Mesh(breakable_stack, prefix, tmp_path) as mesh:
        mesh.start()
        yield mesh


class Operator:
    """Kafka's own tools, as an operator uses them."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.admin = AdminClient({**mesh.kafka})

    def make_anew(self, topic: str) -> None:
        name = self.mesh.prefix + topic
        self.admin.delete_topics([name])[name].result(30)
        wait_until(lambda: name not in self.admin.list_topics(timeout=10).topics, 30, "it is gone")
        self.mesh.apply_topics()

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        target = TopicPartition(self.mesh.prefix + topic, partition, before)
        [future] = self.admin.delete_records([target]).values()
        future.result(30)

    def configure(self, topic: str, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(
            ResourceType.TOPIC, self.mesh.prefix + topic, incremental_configs=[entry]
        )
        [future] = self.admin.incremental_alter_configs([resource]).values()
        future.result(30)

    def grow(self, topic: str, partitions: int) -> None:
        name = self.mesh.prefix + topic
        self.admin.create_partitions([NewPartitions(name, partitions)])[name].result(30)

    def commit(self, group: str, topic: str, offset: int, metadata: str) -> None:
        """As a tool does that is no member of the group."""
        name, full = f"{self.mesh.prefix}reviewmesh-{group}", self.mesh.prefix + topic
        offsets = [TopicPartition(full, p, offset, metadata) for p in range(PARTITIONS)]
        wanted = ConsumerGroupTopicPartitions(name, offsets)

        def accepted() -> bool:
            done = self.admin.alter_consumer_group_offsets([wanted])[name].result(30)
            return all(item.error is None for item in done.topic_partitions)

        # A static member that was stopped stands in its group until the session timeout is over.
        wait_until(accepted, SOON_S, f"Kafka takes a commit for {name}")

    def end(self, topic: str, partition: int) -> int:
        consumer = Consumer({**self.mesh.kafka, "group.id": f"{self.mesh.prefix}ends"})
        try:
            target = TopicPartition(self.mesh.prefix + topic, partition)
            end: int = consumer.get_watermark_offsets(target, timeout=10)[1]
            return end
        finally:
            consumer.close()


def skipped(mesh: Mesh, name: str, topic: str) -> float:
    sample = f'reviewmesh_skipped_offsets_total{{service="{name}",topic="{topic}"}}'
    return mesh.processes[name].metric(sample)


def flows(mesh: Mesh, tag: str) -> None:
    """Reviews that are published now come out, each once."""
    published = reviews(60, tag=tag)
    mesh.publish(published)

    def out() -> list[dict[str, Any]]:
        return [record for record in mesh.enriched() if record["review_id"].startswith(tag)]

    mesh.wait_for(lambda: len(out()) >= 60, SOON_S, f"{tag} come out")
    assert_exactly_once(published, out())


@pytest.mark.parametrize(
    "topic", but_nightly(["reviews.raw", "reviews.accepted", "reviews.topic"], ["reviews.accepted"])
)
def test_a_topic_made_anew_is_read_from_its_beginning(mesh: Mesh, topic: str) -> None:
    flows(mesh, "before")
    pids = {name: process.pid for name, process in mesh.processes.items()}
    Operator(mesh).make_anew(topic)
    flows(mesh, "after")
    assert {name: process.pid for name, process in mesh.processes.items()} == pids


def test_a_topic_made_anew_while_its_readers_are_down(mesh: Mesh) -> None:
    flows(mesh, "before")
    for name in ("enricher-ner", "joiner"):
        mesh.processes[name].terminate()
    Operator(mesh).make_anew("reviews.ner")
    for name in ("enricher-ner", "joiner"):
        mesh.processes[name].start()
    flows(mesh, "after")


def test_records_deleted_before_they_are_read_are_counted_and_gone_past(mesh: Mesh) -> None:
    flows(mesh, "before")
    intake = mesh.processes["intake"]
    intake.terminate()
    lost = [review(f"lost-{n}", f"Lost {n}, said Anna.") for n in range(200)]
    mesh.publish(lost)
    on_zero = sum(partition_of(item["review_id"].encode(), PARTITIONS) == 0 for item in lost)
    operator = Operator(mesh)
    operator.delete_records("reviews.raw", 0, operator.end("reviews.raw", 0))
    intake.start()
    mesh.wait_for(lambda: skipped(mesh, "intake", "reviews.raw") >= on_zero, SOON_S, "counted")
    assert "deleted before they were read" in intake.log.read_text()
    flows(mesh, "after")
    out = {r["review_id"] for r in mesh.enriched() if r["review_id"].startswith("lost")}
    assert len(out) == len(lost) - on_zero


@pytest.mark.parametrize(
    "metadata", but_nightly(["somebody's own", "rm9:abc", "rm1:AAAA"], ["rm1:AAAA"])
)
def test_commit_metadata_of_another_tool_counts_as_none(mesh: Mesh, metadata: str) -> None:
    flows(mesh, "before")
    enricher = mesh.processes["enricher-sentiment"]
    enricher.terminate()
    Operator(mesh).commit("enricher-sentiment", "reviews.accepted", 1, metadata)
    enricher.start()
    flows(mesh, "after")
    assert "commit metadata that the mesh did not write is ignored" in enricher.log.read_text()


def test_an_output_that_the_broker_refuses_costs_its_record(mesh: Mesh) -> None:
    """Somebody lowered a topic's limit; librdkafka then fails the whole transaction every time."""
    Operator(mesh).configure("reviews.accepted", "max.message.bytes", "2000")
    chance = random.Random(0)
    noise = "".join(chance.choice(string.ascii_letters) for _ in range(8_000))
    good, large = reviews(400, tag="good"), [review(f"large-{n}", noise) for n in range(3)]
    mesh.publish([*good[:200], *large, *good[200:]])
    out = mesh.wait_enriched(400, 60)
    assert_exactly_once(good, out)
    mesh.wait_for(lambda: len(mesh.dead_letters()) == 3, SOON_S, "dead letters of the large ones")
    assert {letter["cause"] for letter in mesh.dead_letters()} == {"UNREADABLE"}
    assert all(noise.encode() in letter["value"] for letter in mesh.dead_letters())


def test_a_dead_letter_that_its_topic_refuses_waits_and_nothing_else_does(mesh: Mesh) -> None:
    operator = Operator(mesh)
    operator.configure("reviews.dead-letter", "max.message.bytes", "1000")
    for number in range(PARTITIONS):
        for _ in range(3):
            mesh.publish_raw(random.Random(number).randbytes(3_000), partition=number)
    flows(mesh, "meanwhile")
    intake = mesh.processes["intake"]
    mesh.wait_for(lambda: "rejects a dead letter" in intake.get("/readyz")[1], SOON_S, "it says so")
    assert intake.get("/readyz")[0] == 503
    flows(mesh, "again")
    assert intake.log.read_text().count("a dead letter is rejected") == 1
    operator.configure("reviews.dead-letter", "max.message.bytes", str(8 * 1024 * 1024))
    mesh.wait_for(lambda: len(mesh.dead_letters()) == 3 * PARTITIONS, SOON_S, "they come out")
    wait_until(intake.is_ready, SOON_S, "intake ready")
    assert len(mesh.dead_letters()) == 3 * PARTITIONS


def test_raw_may_grow_while_it_is_read(mesh: Mesh) -> None:
    flows(mesh, "before")
    Operator(mesh).grow("reviews.raw", 12)
    codec = mesh.codec("reviews.raw")
    grown = [review(f"grown-{n}", f"Grown {n}, said Anna.") for n in range(60)]
    for number, item in enumerate(grown):
        mesh.publish_raw(codec.encode(item), item["review_id"].encode(), number % 12)
    mesh.wait_for(
        lambda: sum(r["review_id"].startswith("grown") for r in mesh.enriched()) == 60,
        60,
        "all come out, those on the new partitions too",
    )
    assert mesh.dead_letters() == []
