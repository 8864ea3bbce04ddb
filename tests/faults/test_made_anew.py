"""Topics that are deleted and made anew, under services that run and under some that are down."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition

from reviewmesh.clock import wall_clock
from reviewmesh.lag.groups import watched_groups
from reviewmesh.lag.meter import LagMeter
from reviewmesh.lag.offsets import Broker
from reviewmesh.settings import KafkaSettings, Settings
from reviewmesh_schemas.names import TASKS
from tests.broker import TestStack, wait_until
from tests.faults.test_operators import Operator
from tests.mesh import PARTITIONS, SERVICES, Mesh, assert_exactly_once, reviews
from tests.nightly import but_nightly

SOON_S = 30


@pytest.fixture(scope="module")
def mesh(breakable_stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("mesh")
    with Mesh(breakable_stack, f"anew{folder.name[-1]}{os.getpid()}.", folder) as mesh:
        mesh.start()
        restart_broker(mesh)
        yield mesh


def restart_broker(mesh: Mesh) -> None:
    """Raises the epoch of every leader: a topic that is made anew begins with epoch 0 again."""
    mesh.stack.stop("broker")
    mesh.stack.start("broker")
    # A transaction that the restart falls into may be given up only after its deadline.
    flows(mesh, "restarted", within_s=90)


def delete(mesh: Mesh, topic: str) -> None:
    operator, name = Operator(mesh), mesh.prefix + topic
    operator.admin.delete_topics([name])[name].result(30)
    wait_until(lambda: name not in operator.admin.list_topics(timeout=10).topics, 30, "it is gone")
    # The tests' own reader begins anew too; it keeps what it has read.
    mesh._positions.pop(topic, None)


def out(mesh: Mesh, tag: str) -> list[dict[str, Any]]:
    return [record for record in mesh.enriched() if record["review_id"].startswith(f"{tag}-")]


def publish(mesh: Mesh, tag: str, count: int = 60) -> list[dict[str, Any]]:
    published = reviews(count, tag=tag)
    mesh.publish(published)
    return published


def come_out(mesh: Mesh, tag: str, published: list[dict[str, Any]], within_s: float) -> None:
    wanted = len(published)
    mesh.wait_for(lambda: len(out(mesh, tag)) >= wanted, within_s, f"{tag} come out")
    assert_exactly_once(published, out(mesh, tag))


def flows(mesh: Mesh, tag: str, count: int = 60, within_s: float = SOON_S) -> None:
    come_out(mesh, tag, publish(mesh, tag, count), within_s)


def pids(mesh: Mesh) -> dict[str, int]:
    return {name: mesh.processes[name].pid for name in SERVICES}


def logged(mesh: Mesh, words: str) -> list[str]:
    return [
        f"{name}: {line}"
        for name in SERVICES
        for line in mesh.processes[name].log.read_text(errors="replace").splitlines()
        if words in line
    ]


def caught_up(mesh: Mesh) -> None:
    def is_done() -> bool:
        return all(
            mesh.processes[name].metric("reviewmesh_in_flight_records") == 0 for name in SERVICES
        )

    mesh.wait_for(is_done, SOON_S, "nothing is in flight")


def says_missing(mesh: Mesh, name: str, topic: str) -> bool:
    status, body = mesh.processes[name].get("/readyz")
    return status == 503 and mesh.prefix + topic in body


@contextmanager
def lag(mesh: Mesh) -> Iterator[LagMeter]:
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=mesh.stack.bootstrap_servers), prefix=mesh.prefix
    )
    meter = LagMeter(Broker(settings), watched_groups(settings), wall_clock)
    try:
        yield meter
    finally:
        meter.close()


@pytest.mark.parametrize(
    "topic", but_nightly(["reviews.raw", "reviews.accepted", "reviews.ner"], ["reviews.raw"])
)
def test_lag_goes_on_measuring(mesh: Mesh, topic: str) -> None:
    """A client that has seen the old leader's epoch must not read the new topic in vain."""
    flows(mesh, f"lag-before-{topic}")
    with lag(mesh) as meter:
        meter.measure()
        joiner = mesh.processes["joiner"]
        delete(mesh, topic)
        # Only the one that is gone is named.
        problems = {problem.split(":")[0] for problem in meter.measure().problems}
        assert problems <= {mesh.prefix + topic}
        mesh.apply_topics()
        joiner.signal(signal.SIGSTOP)
        try:
            publish(mesh, f"lag-after-{topic}")
            wait_until(lambda: meter.measure().problems == (), 15, "everything is measured")
        finally:
            joiner.signal(signal.SIGCONT)
        mesh.wait_for(lambda: len(out(mesh, f"lag-after-{topic}")) >= 60, SOON_S, "they come out")


USERS = {
    "reviews.raw": ("intake",),
    "reviews.accepted": SERVICES,
    "reviews.ner": ("enricher-ner", "joiner"),
    "reviews.topic": ("enricher-topic", "joiner"),
    "reviews.enriched": ("joiner",),
    "reviews.partial": ("joiner",),
    "reviews.dead-letter": SERVICES,
    "reviews.replayed": ("intake", "joiner"),
}


@pytest.mark.parametrize("topic", but_nightly(USERS, ["reviews.accepted"]))
def test_live(mesh: Mesh, topic: str) -> None:
    """The old leader's epoch is above the new one's, which a client keeps for as long as it is."""
    flows(mesh, f"before-{topic}")
    caught_up(mesh)
    before, still = pids(mesh), len(logged(mesh, "stands still"))
    delete(mesh, topic)
    for name in USERS[topic]:
        mesh.wait_for(partial(says_missing, mesh, name, topic), 20, f"{name} misses it")
    mesh.apply_topics()
    flows(mesh, f"after-{topic}")
    caught_up(mesh)
    mesh.wait_ready(SOON_S)
    assert pids(mesh) == before
    assert len(logged(mesh, "stands still")) == still


@pytest.mark.nightly
@pytest.mark.parametrize("topic", ["reviews.raw", "reviews.accepted", "reviews.sentiment"])
def test_missing_for_longer_than_the_metadata_is_kept(mesh: Mesh, topic: str) -> None:
    """The group takes the partitions away in between, and gives them again."""
    flows(mesh, f"before-long-{topic}")
    before = pids(mesh)
    delete(mesh, topic)
    readers = USERS.get(topic, ("joiner",))
    mesh.wait_for(lambda: all(says_missing(mesh, n, topic) for n in readers), 20, "missed")
    deadline = wall_clock() + 45
    wait_until(lambda: wall_clock() > deadline, 60, "it is missing for long")
    mesh.apply_topics()
    flows(mesh, f"after-long-{topic}", within_s=45)
    mesh.wait_ready(SOON_S)
    assert pids(mesh) == before


@pytest.mark.parametrize("attempt", but_nightly(range(3), [0]))
def test_accepted_live_where_older_results_have_its_offsets(mesh: Mesh, attempt: int) -> None:
    """Set back, the joiner reads results of the old topic first, under the same offsets."""
    flows(mesh, f"before-{attempt}", 400)
    caught_up(mesh)
    delete(mesh, "reviews.accepted")
    mesh.apply_topics()
    flows(mesh, f"after-{attempt}", 400, 60)
    caught_up(mesh)


def test_what_was_lost_with_accepted_may_be_published_again(mesh: Mesh) -> None:
    """Intake still knows it from before, and must not take it for a duplicate."""
    enrichers = [mesh.processes[f"enricher-{task}"] for task in TASKS]
    for process in enrichers:
        process.terminate()
    there = len(mesh.read("reviews.accepted"))
    published = publish(mesh, "again")
    mesh.wait_for(lambda: len(mesh.read("reviews.accepted")) >= there + 60, SOON_S, "accepted")
    delete(mesh, "reviews.accepted")
    mesh.apply_topics()
    for process in enrichers:
        process.start()

    def all_out() -> bool:
        """What is published before intake has noticed is dropped, and so is a second time after."""
        mesh.publish(published)
        return len(out(mesh, "again")) >= len(published)

    mesh.wait_for(all_out, 2 * SOON_S, "they come out")
    come_out(mesh, "again", published, SOON_S)


def test_under_load_and_twice_in_a_row(mesh: Mesh) -> None:
    """What was read or comes later is out once at most, and whole; nothing stands still."""
    mesh.script(delay_ms=60)
    load = publish(mesh, "load", 1_000)
    mesh.wait_for(lambda: len(out(mesh, "load")) >= 100, 60, "some are out")
    for _ in range(2):
        delete(mesh, "reviews.accepted")
        mesh.apply_topics()
        mesh.wait_for(lambda: publish(mesh, "tick", 1) != [], 5, "more is published")
    mesh.script()
    flows(mesh, "after-load", 200, 60)
    caught_up(mesh)
    found = [record["review_id"] for record in out(mesh, "load")]
    assert len(found) == len(set(found)) <= len(load)
    assert all(record["complete"] for record in out(mesh, "load"))


# -- while the reader is down ----------------------------------------------------------------


def commits(mesh: Mesh, group: str, topic: str) -> list[TopicPartition]:
    """What the group has committed, with its metadata."""
    options = {**mesh.kafka, "group.id": f"{mesh.prefix}reviewmesh-{group}"}
    consumer = Consumer(options)
    try:
        wanted = [TopicPartition(mesh.prefix + topic, p) for p in range(PARTITIONS)]
        return consumer.committed(wanted, timeout=10)
    finally:
        consumer.close()


def commit_again(mesh: Mesh, group: str, offsets: list[TopicPartition]) -> None:
    """Kafka drops the offsets of a topic that is deleted. A service that ends meanwhile tries its
    last commit until the topic is there again, and so commits on to the new log."""
    admin = Operator(mesh).admin
    name = f"{mesh.prefix}reviewmesh-{group}"
    wanted = ConsumerGroupTopicPartitions(name, offsets)

    def accepted() -> bool:
        done = admin.alter_consumer_group_offsets([wanted])[name].result(30)
        return all(item.error is None for item in done.topic_partitions)

    wait_until(accepted, SOON_S, f"Kafka takes a commit for {name}")


def backlog(mesh: Mesh, group: str, topic: str) -> dict[int, int]:
    with lag(mesh) as meter:
        return {
            row.partition: row.backlog
            for row in meter.measure().rows
            if row.group == f"{mesh.prefix}reviewmesh-{group}" and row.topic == mesh.prefix + topic
        }


DOWN = [
    ("intake", "reviews.raw"),
    ("enricher-ner", "reviews.accepted"),
    ("joiner", "reviews.accepted"),
    ("joiner", "reviews.topic"),
]


@pytest.mark.parametrize("length", but_nightly(["shorter", "equal", "longer"], ["equal"]))
@pytest.mark.parametrize(("service", "topic"), DOWN)
def test_down(mesh: Mesh, service: str, topic: str, length: str) -> None:
    tag = f"{service}-{topic}-{length}"
    flows(mesh, f"before-{tag}", 120)
    caught_up(mesh)
    process = mesh.processes[service]
    process.terminate()
    before = commits(mesh, service, topic)
    assert all(item.offset > 0 for item in before)
    delete(mesh, topic)
    mesh.apply_topics()
    operator = Operator(mesh)
    if length == "equal":
        flow_of = {"reviews.raw": 1}.get(topic, 2)
        for item in before:
            item.offset = min(item.offset, flow_of)
    published = publish(mesh, f"after-{tag}", 24 if length == "shorter" else 400)
    wait_until(
        lambda: all(operator.end(topic, p) > 0 for p in range(PARTITIONS)), SOON_S, "records there"
    )
    if length == "longer":
        for item in before:
            item.offset = min(item.offset, 20)
        wait_until(
            lambda: all(operator.end(topic, p) > 20 for p in range(PARTITIONS)), SOON_S, "more"
        )
    commit_again(mesh, service, before)
    assert all(unread > 0 for unread in backlog(mesh, service, topic).values())
    process.start()
    come_out(mesh, f"after-{tag}", published, 60)
    caught_up(mesh)
