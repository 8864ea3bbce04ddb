"""Inputs of the joiner that are trimmed before it has read them, live and while it is down."""

from __future__ import annotations

import signal

import pytest

from reviewmesh.kafka.partitioning import partition_of
from tests.faults.test_operators import Operator
from tests.faults.test_resets import EARLIEST, RESULTS, SOON_S, caught_up, flow_on, of, reset
from tests.mesh import PARTITIONS, Mesh, reviews

PARTITION = 1


@pytest.mark.parametrize("live", [True, False])
def test_results_whose_accepted_review_was_trimmed_are_dropped(mesh: Mesh, live: bool) -> None:
    tag = f"trimmed-{live}-"
    joiner = mesh.processes["joiner"]
    there = {topic: len(mesh.read(topic)) for topic in RESULTS}
    if live:
        joiner.signal(signal.SIGSTOP)
    else:
        joiner.terminate()
    published = reviews(30, tag=tag)
    mesh.publish(published)
    mesh.wait_for(
        lambda: all(len(mesh.read(topic)) >= there[topic] + 30 for topic in RESULTS),
        SOON_S,
        "every result is there",
    )
    operator = Operator(mesh)
    end = operator.end("reviews.accepted", PARTITION)
    operator.delete_records("reviews.accepted", PARTITION, end)
    if live:
        joiner.signal(signal.SIGCONT)
    else:
        joiner.start()
    kept = [
        item
        for item in published
        if partition_of(item["review_id"].encode(), PARTITIONS) != PARTITION
    ]
    mesh.wait_for(lambda: len(of(mesh, tag)) >= len(kept), SOON_S, "the others come out")
    flow_on(mesh, f"after-{tag}")
    caught_up(mesh)
    assert {r["review_id"] for r in of(mesh, tag)} == {item["review_id"] for item in kept}
    if not live:
        assert "deleted before they were read" in joiner.log.read_text()
    assert joiner.popen is not None
    assert joiner.popen.poll() is None


@pytest.mark.parametrize("accepted_offset", [2**60, -1])
def test_a_result_of_a_review_that_never_comes_stops_nothing(
    mesh: Mesh, accepted_offset: int
) -> None:
    value = mesh.codec("reviews.ner").encode(
        {
            "review_id": "nobody",
            "content_hash": "none",
            "accepted_partition": PARTITION,
            "accepted_offset": accepted_offset,
            "status": "OK",
        }
    )
    mesh.publish_raw(value, partition=PARTITION, topic="reviews.ner")
    flow_on(mesh, f"absurd-{accepted_offset}-")


@pytest.mark.parametrize("topic", ["reviews.partial", "reviews.replayed", "reviews.enriched"])
def test_foreign_records_in_what_is_read_back_keep_nothing_from_opening(
    mesh: Mesh, topic: str
) -> None:
    joiner = mesh.processes["joiner"]
    joiner.terminate()
    for partition in range(PARTITIONS):
        mesh.publish_raw(b"junk", b"\xff\xfe", partition, topic)
        mesh.publish_raw(None, b"\xff\xfe", partition, topic)
    reset(mesh, "joiner", ("reviews.accepted",), EARLIEST)
    joiner.start()
    mesh.publish(reviews(30, tag=f"foreign-{topic}-"))
    # The records of this life: what others read of the topic would stumble over the junk.
    mesh.wait_for(lambda: joiner.metric("reviewmesh_enriched_total") >= 30, SOON_S, "they come out")
    caught_up(mesh)
    assert joiner.metric("reviewmesh_enriched_total") == 30
    assert mesh.processes["joiner"].metric("reviewmesh_records_not_repeated_total") > 0
