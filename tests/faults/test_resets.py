"""What comes out when an operator resets a group: each row of the runbook's table."""

from __future__ import annotations

import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh_schemas.names import TASKS
from tests.broker import wait_until
from tests.faults.test_operators import Operator
from tests.mesh import PARTITIONS, Mesh, Process, assert_exactly_once, reviews
from tests.nightly import but_nightly

ACCEPTED = "reviews.accepted"
RESULTS = tuple(f"reviews.{task}" for task in TASKS)
EARLIEST, LATEST = "earliest", "latest"
ALL_EARLIEST = ("all-earliest", (ACCEPTED, *RESULTS), EARLIEST)
SECRET = "a secret of intake's own"
SOON_S = 40


def reset(mesh: Mesh, group: str, topics: Iterable[str], to: str | int) -> None:
    """As `kafka-consumer-groups --reset-offsets` does it; `to` may be a time in milliseconds."""
    name = f"{mesh.prefix}reviewmesh-{group}"
    consumer: Any = Consumer({**mesh.kafka, "group.id": f"{mesh.prefix}ends"})
    offsets = []
    for topic in topics:
        for partition in range(PARTITIONS):
            at = TopicPartition(mesh.prefix + topic, partition)
            low, high = consumer.get_watermark_offsets(at, timeout=10)
            if isinstance(to, int):
                at.offset = to
                found = consumer.offsets_for_times([at], timeout=10)[0].offset
                at.offset = found if found >= 0 else high
            else:
                at.offset = low if to == EARLIEST else high
            offsets.append(at)
    consumer.close()
    admin = AdminClient({**mesh.kafka})
    wanted = ConsumerGroupTopicPartitions(name, offsets)

    def accepted() -> bool:
        done = admin.alter_consumer_group_offsets([wanted])[name].result(30)
        return all(item.error is None for item in done.topic_partitions)

    # A static member that was stopped stands in its group until the session timeout is over.
    wait_until(accepted, SOON_S, f"Kafka takes a reset of {name}")


def of(mesh: Mesh, tag: str) -> list[dict[str, Any]]:
    return [record for record in mesh.enriched() if record["review_id"].startswith(tag)]


def all_out(mesh: Mesh, tag: str, published: list[dict[str, Any]]) -> None:
    """Each once, complete, in order, with revisions that rise."""
    mesh.wait_for(lambda: len(of(mesh, tag)) >= len(published), SOON_S, f"{tag} come out")
    caught_up(mesh)
    assert_exactly_once(published, of(mesh, tag))
    assert len(of(mesh, tag)) == len(published)
    revisions_rise(of(mesh, tag))


def revisions_rise(records: list[dict[str, Any]]) -> None:
    revisions = defaultdict(list)
    for record in records:
        revisions[record["review_id"]].append(record["revision"])
    for numbers in revisions.values():
        assert all(earlier < later for earlier, later in pairwise(numbers)), numbers


def caught_up(mesh: Mesh) -> None:
    """Nothing is in flight, so nothing more comes out."""

    def idle() -> bool:
        lines = [
            line
            for process in mesh.processes.values()
            for line in process.get("/metrics")[1].splitlines()
            if line.startswith("reviewmesh_in_flight_records{")
        ]
        return len(lines) >= 8 and all(line.endswith(" 0.0") for line in lines)

    mesh.wait_for(idle, SOON_S, "every service caught up")


def flow_on(mesh: Mesh, tag: str) -> None:
    published = reviews(60, tag=tag)
    mesh.publish(published)
    all_out(mesh, tag, published)


@pytest.mark.parametrize(
    ("row", "topics", "to"),
    but_nightly(
        [
            ALL_EARLIEST,
            ("all-latest", (ACCEPTED, *RESULTS), LATEST),
            ("all-time", (ACCEPTED, *RESULTS), 0),
            ("accepted-earliest", (ACCEPTED,), EARLIEST),
            ("accepted-latest", (ACCEPTED,), LATEST),
            ("topic-earliest", ("reviews.topic",), EARLIEST),
            ("topic-latest", ("reviews.topic",), LATEST),
        ],
        [ALL_EARLIEST, ("topic-latest", ("reviews.topic",), LATEST)],
    ),
)
def test_a_joiner_that_is_reset_repeats_nothing(
    mesh: Mesh, row: str, topics: tuple[str, ...], to: str | int
) -> None:
    tag = f"done-{row}"
    first = reviews(100, tag=f"{tag}-")
    mesh.publish(first)
    all_out(mesh, tag, first)
    middle = int(time.time() * 1000)
    second = [{**item, "text": f"{item['text']} Edited."} for item in first]
    mesh.publish(second)
    all_out(mesh, tag, first + second)
    mesh.processes["joiner"].terminate()
    reset(mesh, "joiner", topics, middle if to == 0 else to)
    mesh.processes["joiner"].start()
    flow_on(mesh, f"after-{row}")
    all_out(mesh, tag, first + second)


@pytest.mark.parametrize(
    ("row", "topics", "to"),
    but_nightly(
        [
            ALL_EARLIEST,
            ("accepted-earliest", (ACCEPTED,), EARLIEST),
            ("ner-latest", ("reviews.ner",), LATEST),
            ("results-latest", RESULTS, LATEST),
        ],
        [ALL_EARLIEST, ("results-latest", RESULTS, LATEST)],
    ),
)
def test_what_waits_while_the_joiner_is_reset_comes_out_complete(
    mesh: Mesh, row: str, topics: tuple[str, ...], to: str | int
) -> None:
    tag = f"waits-{row}"
    before = reviews(60, tag=f"{tag}-before-")
    mesh.publish(before)
    all_out(mesh, tag, before)
    mesh.processes["joiner"].terminate()
    waiting = reviews(60, versions=2, tag=f"{tag}-")
    at = {topic: len(mesh.read(topic)) for topic in RESULTS}
    mesh.publish(waiting)
    mesh.wait_for(
        lambda: all(len(mesh.read(topic)) >= at[topic] + len(waiting) for topic in RESULTS),
        SOON_S,
        "every result is there",
    )
    reset(mesh, "joiner", topics, to)
    mesh.processes["joiner"].start()
    all_out(mesh, tag, before + waiting)


def test_accepted_reviews_that_were_skipped_come_out_when_it_is_set_back(mesh: Mesh) -> None:
    mesh.processes["joiner"].terminate()
    skipped = reviews(60, tag="skipped-")
    read = len(mesh.read("reviews.sentiment"))
    mesh.publish(skipped)
    mesh.wait_for(lambda: len(mesh.read("reviews.sentiment")) >= read + 60, SOON_S, "inferred")
    reset(mesh, "joiner", (ACCEPTED,), LATEST)
    mesh.processes["joiner"].start()
    edited = [{**item, "text": "A later version."} for item in skipped[:30]]
    mesh.publish(edited)
    all_out(mesh, "skipped-", edited)
    mesh.processes["joiner"].terminate()
    reset(mesh, "joiner", (ACCEPTED,), EARLIEST)
    mesh.processes["joiner"].start()
    all_out(mesh, "skipped-", edited + skipped[30:])


def test_a_joiner_that_dies_amid_a_reset_goes_on_with_it(mesh: Mesh) -> None:
    published = reviews(200, tag="amid-")
    mesh.publish(published)
    all_out(mesh, "amid-", published)
    mesh.processes["joiner"].terminate()
    operator, deleted = Operator(mesh), (0, 2, 4)
    for partition in deleted:
        end = operator.end("reviews.enriched", partition)
        operator.delete_records("reviews.enriched", partition, end)
    reset(mesh, "joiner", (ACCEPTED,), EARLIEST)
    dying = mesh.add("joiner", dies_in_transaction=1)
    dying.start()
    assert dying.wait() == -signal.SIGKILL
    mesh.add("joiner").start()
    home = {r["review_id"]: partition_of(r["review_id"].encode(), PARTITIONS) for r in published}
    again = sum(partition in deleted for partition in home.values())
    mesh.wait_for(
        lambda: len(of(mesh, "amid-")) >= len(published) + again, SOON_S, "what was deleted"
    )
    flow_on(mesh, "after-dying-")
    times = Counter(record["review_id"] for record in of(mesh, "amid-"))
    assert times == {key: 2 if partition in deleted else 1 for key, partition in home.items()}
    assert all(record["complete"] for record in of(mesh, "amid-"))
    revisions_rise(of(mesh, "amid-"))


@pytest.mark.parametrize("to", but_nightly([EARLIEST, LATEST], [EARLIEST]))
def test_an_enricher_that_is_reset_changes_nothing_that_is_out(mesh: Mesh, to: str) -> None:
    tag = f"inferred-{to}"
    published = reviews(60, versions=2, tag=f"{tag}-")
    mesh.publish(published)
    all_out(mesh, tag, published)
    mesh.processes["enricher-ner"].terminate()
    reset(mesh, "enricher-ner", (ACCEPTED,), to)
    mesh.processes["enricher-ner"].start()
    flow_on(mesh, f"after-{tag}")
    all_out(mesh, tag, published)


def test_reviews_that_an_enricher_skipped_are_complete_once_it_is_set_back(mesh: Mesh) -> None:
    enricher = mesh.processes["enricher-ner"]
    enricher.terminate()
    skipped, inferred = reviews(30, tag="unanswered-"), len(mesh.read("reviews.topic"))
    mesh.publish(skipped)
    mesh.wait_for(
        lambda: len(mesh.read("reviews.topic")) >= inferred + 30, SOON_S, "another task answers"
    )
    reset(mesh, "enricher-ner", (ACCEPTED,), LATEST)
    enricher.start()
    later = reviews(30, tag="answered-")
    mesh.publish(later)
    mesh.wait_for(lambda: len(of(mesh, "answered-")) == 30, SOON_S, "later reviews come out")
    assert of(mesh, "unanswered-") == []
    enricher.terminate()
    reset(mesh, "enricher-ner", (ACCEPTED,), EARLIEST)
    enricher.start()
    all_out(mesh, "unanswered-", skipped)
    all_out(mesh, "answered-", later)


def test_intake_that_is_reset_judges_nothing_again(mesh: Mesh) -> None:
    codec, tag = mesh.codec("reviews.raw"), "raw"
    first = reviews(60, tag=f"{tag}-")
    edited = [{**item, "text": f"{item['text']} Edited."} for item in first]
    mesh.publish([*first, *first[:20], *edited, *first])
    wrong = reviews(30, tag=f"{tag}-wrong-")
    for number, item in enumerate([*wrong, *wrong[:10]]):
        mesh.publish_raw(codec.encode(item), b"any key", number % PARTITIONS)
    for partition in range(PARTITIONS):
        mesh.publish_raw(b"junk", partition=partition)
    all_out(mesh, tag, [*first, *edited, *first, *wrong])
    mesh.wait_for(lambda: len(mesh.dead_letters()) == PARTITIONS, SOON_S, "dead letters")
    for to in (EARLIEST, LATEST):
        mesh.processes["intake"].terminate()
        reset(mesh, "intake", ("reviews.raw",), to)
        mesh.processes["intake"].start()
        flow_on(mesh, f"after-raw-{to}")
        all_out(mesh, tag, [*first, *edited, *first, *wrong])
        assert len(mesh.dead_letters()) == PARTITIONS


@pytest.mark.nightly
def test_raw_records_that_were_skipped_are_judged_when_it_is_set_back(mesh: Mesh) -> None:
    letters = len(mesh.dead_letters())
    mesh.processes["intake"].terminate()
    codec, skipped = mesh.codec("reviews.raw"), reviews(60, tag="passed-")
    for number, item in enumerate(skipped):
        mesh.publish_raw(codec.encode(item), b"any key", number % PARTITIONS)
    mesh.publish_raw(b"junk", partition=2)
    reset(mesh, "intake", ("reviews.raw",), LATEST)
    mesh.processes["intake"].start()
    flow_on(mesh, "after-passed")
    assert of(mesh, "passed-") == []
    mesh.processes["intake"].terminate()
    reset(mesh, "intake", ("reviews.raw",), EARLIEST)
    mesh.processes["intake"].start()
    all_out(mesh, "passed-", skipped)
    assert len(mesh.dead_letters()) == letters + 1


@pytest.fixture
def intake(mesh: Mesh) -> Iterator[Process]:
    """With its settings as they were again afterwards."""
    intake = mesh.processes["intake"]
    before = dict(intake.environment)
    yield intake
    intake.terminate()
    intake.environment.clear()
    intake.environment.update(before)
    intake.start()


def set_back(mesh: Mesh, intake: Process, to: str | int) -> None:
    """After so long that nothing that came before is in the memory of duplicates."""
    intake.terminate()
    intake.environment["REVIEWMESH_INTAKE__DEDUPE_WINDOW_S"] = "1"
    reset(mesh, "intake", ("reviews.raw",), to)
    intake.start()


@pytest.mark.nightly
def test_a_reset_to_behind_what_a_duplicate_repeats_leaves_it_dropped(
    mesh: Mesh, intake: Process
) -> None:
    codec, published = mesh.codec("reviews.raw"), reviews(60, tag="repeats-")
    mesh.publish(published[:30])
    for number, item in enumerate(published[30:]):
        mesh.publish_raw(codec.encode(item), b"any key", number % PARTITIONS)
    mesh.wait_for(
        lambda: sum("repeats-" in r["review_id"] for r in mesh.read(ACCEPTED)) == 60,
        SOON_S,
        "accepted",
    )
    between = int(time.time() * 1000)
    mesh.publish(published[:30])
    for number, item in enumerate(published[30:]):
        mesh.publish_raw(codec.encode(item), b"any key", number % PARTITIONS)
    all_out(mesh, "repeats-", published)
    for to in (between, between, EARLIEST):
        set_back(mesh, intake, to)
        flow_on(mesh, f"after-repeats-{time.time()}")
        all_out(mesh, "repeats-", published)


@pytest.mark.nightly
@pytest.mark.parametrize("secret", ["", SECRET], ids=["unsigned", "signed"])
def test_what_was_forwarded_is_known_when_its_copy_is_deleted(
    mesh: Mesh, intake: Process, secret: str
) -> None:
    if secret:
        intake.environment["REVIEWMESH_INTAKE__FORWARDING_SECRET"] = secret
        intake.terminate()
        intake.start()
    tag = f"copied-{len(secret)}-"
    codec, published, known = (
        mesh.codec("reviews.raw"),
        reviews(60, tag=tag),
        len(mesh.dead_letters()),
    )
    empty = reviews(10, tag=f"{tag}empty-")
    for item in [*published, *published[:20], *({**item, "text": " "} for item in empty)]:
        mesh.publish_raw(codec.encode(item), b"any key", 0)
    all_out(mesh, tag, published)
    mesh.wait_for(lambda: len(mesh.dead_letters()) >= known + 10, SOON_S, "10 dead letters")
    operator = Operator(mesh)
    for partition in range(1, PARTITIONS):
        end = operator.end("reviews.raw", partition)
        operator.delete_records("reviews.raw", partition, end)
    for to in (EARLIEST, EARLIEST):
        set_back(mesh, intake, to)
        flow_on(mesh, f"after-{tag}{time.time()}")
        all_out(mesh, tag, published)
        assert len(mesh.dead_letters()) == known + 10


def test_a_live_group_cannot_be_reset(mesh: Mesh) -> None:
    name = f"{mesh.prefix}reviewmesh-joiner"
    at = TopicPartition(mesh.prefix + ACCEPTED, 0, 0)
    wanted = ConsumerGroupTopicPartitions(name, [at])
    admin = AdminClient({**mesh.kafka})
    done = admin.alter_consumer_group_offsets([wanted])[name].result(30)
    assert [item.error.name() for item in done.topic_partitions] == ["UNKNOWN_MEMBER_ID"]
