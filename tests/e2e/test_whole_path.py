"""Raw to enriched on the real broker, with the scripted engine behind the real worker."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.mesh import Mesh, assert_exactly_once, review, reviews


def of(mesh: Mesh, tag: str) -> list[dict[str, Any]]:
    return [record for record in mesh.enriched() if record["review_id"].startswith(tag)]


def wait_of(mesh: Mesh, tag: str, count: int) -> list[dict[str, Any]]:
    mesh.wait_for(lambda: len(of(mesh, tag)) >= count, 60, f"{count} enriched reviews of {tag}")
    return of(mesh, tag)


def test_every_review_comes_out_once_in_order(mesh: Mesh) -> None:
    published = reviews(500, versions=2, tag="plain")
    mesh.publish(published)
    enriched = wait_of(mesh, "plain", 1000)
    assert_exactly_once(published, enriched)
    assert len({(r["_partition"], r["revision"]) for r in enriched}) == len(enriched)
    assert all(1 <= record["revision"] <= record["_offset"] + 1 for record in enriched)
    for record in enriched[:50]:
        for entity in record["entities"]:
            assert record["text"][entity["start"] : entity["end"]] == entity["text"]
        assert record["tasks"]["ner"]["lineage"]["engine"] == "scripted"


def test_the_same_review_three_times_with_intake_killed_in_between(mesh: Mesh) -> None:
    same = [review("thrice", "Quite the same")]
    mesh.publish(same)
    wait_of(mesh, "thrice", 1)
    mesh.processes["intake"].kill()
    mesh.publish(same)
    mesh.processes["intake"].start()
    mesh.publish([*same, review("thrice-end", "Anything")])
    wait_of(mesh, "thrice-end", 1)
    assert len([r for r in of(mesh, "thrice") if r["review_id"] == "thrice"]) == 1


def test_content_a_then_b_then_a_again(mesh: Mesh) -> None:
    published = [review("aba", "A text"), review("aba", "B text"), review("aba", "A text")]
    mesh.publish(published)
    enriched = wait_of(mesh, "aba", 3)
    assert_exactly_once(published, enriched)
    assert all(a["revision"] < b["revision"] for a, b in pairwise(enriched))


@pytest.mark.parametrize("keys", ["default-partitioner", "wrong", "none"])
def test_producers_key_as_they_like(mesh: Mesh, keys: str) -> None:
    tag = f"keys-{keys}-"
    published = reviews(200, tag=tag) if keys == "none" else reviews(100, versions=2, tag=tag)
    codec = mesh.codec("reviews.raw")
    producer = Producer({**mesh.kafka, "enable.idempotence": "true"})
    for item in published:
        key = {"default-partitioner": item["review_id"], "wrong": item["review_id"][-1]}.get(keys)
        producer.produce(f"{mesh.prefix}reviews.raw", key=key, value=codec.encode(item))
    assert producer.flush(30) == 0
    assert_exactly_once(published, wait_of(mesh, tag, 200))


def test_bad_input_becomes_dead_letters_with_the_original_bytes(mesh: Mesh) -> None:
    raw = mesh.codec("reviews.raw")
    good = raw.encode(review("bad-0", "A good one"))
    result = mesh.codec("reviews.ner").encode(
        {
            "review_id": "x",
            "content_hash": "y",
            "accepted_partition": 0,
            "accepted_offset": 0,
            "status": "OK",
        }
    )
    bad: dict[str, list[bytes | None]] = {
        "MALFORMED": [good[:-5], b"", b"plain text", good + b"!"],
        "UNKNOWN_SCHEMA": [struct.pack(">bI", 0, 999_999) + good[5:]],
        "INVALID": [
            result,
            raw.encode(review("bad-1", "Nine stars", stars=9.0)),
            raw.encode(review("", "No id")),
        ],
        "EMPTY": [
            raw.encode(review("bad-2", "")),
            raw.encode(review("bad-3", " \n\t ")),
            raw.encode(review("bad-4", None)),
        ],
        "OVERSIZE": [raw.encode(review("bad-5", "x" * 100_001))],
        "TOMBSTONE": [None],
    }
    wanted = sorted(((cause, value) for cause, values in bad.items() for value in values), key=str)
    for _, value in wanted:
        # A tombstone is about the review of its key: this one is about none.
        mesh.publish_raw(value, key=b"any key" if value is not None else None, partition=3)
    mesh.publish([review("after-bad", "Nothing stops")])
    wait_of(mesh, "after-bad", 1)
    mesh.wait_for(lambda: len(mesh.dead_letters()) >= len(wanted), 30, "all dead letters")
    # A producer's record that belongs to another partition is forwarded before it is judged.
    got = sorted(((d["cause"], d["value"]) for d in mesh.dead_letters()), key=str)
    assert got == wanted
    assert all(d["stage"] == "intake" and d["message"] for d in mesh.dead_letters())


def test_odd_input_is_enriched_and_spans_hold(mesh: Mesh) -> None:
    texts = [
        "null\x00bytes at Acme",
        "\N{GRINNING FACE}" * 10_000 + " Acme",
        "\u202eשלום\u202c לכם Acme",
        "\u0301\u0301 lone marks Acme",
        "word " * 19_798 + "Acme",
        "So it went. " * 416 + "Ask Acme.",
    ]
    mesh.publish([review(f"odd-{number}", text) for number, text in enumerate(texts)])
    for record in wait_of(mesh, "odd-", len(texts)):
        assert record["complete"], record["tasks"]
        found = [entity["text"] for entity in record["entities"]]
        assert "Acme" in found
        for entity in record["entities"]:
            assert record["text"][entity["start"] : entity["end"]] == entity["text"]


def test_one_bad_item_does_not_take_its_batch_along_and_is_replayed(mesh: Mesh) -> None:
    mesh.script(poison=["POISON"])
    batch = [*reviews(31, tag="poison-"), review("poison-bad", "POISON for the engine")]
    mesh.publish(batch)
    enriched = {record["review_id"]: record for record in wait_of(mesh, "poison-", 32)}
    assert len(enriched) == 32
    failed = enriched.pop("poison-bad")
    assert {task["status"] for task in failed["tasks"].values()} == {"FAILED"}
    assert all(record["complete"] for record in enriched.values())
    letters = [d for d in mesh.dead_letters() if d["review_id"] == "poison-bad"]
    assert sorted(d["stage"] for d in letters) == [
        "enrich.ner",
        "enrich.sentiment",
        "enrich.topic",
    ]
    mesh.script()
    letter = letters[0]
    producer = Producer(dict(mesh.kafka))
    producer.produce(
        mesh.prefix + letter["topic"],
        key=letter["key"],
        value=letter["value"],
        partition=letter["partition"],
        headers=[("reviewmesh-replay", b"all")],
    )
    assert producer.flush(10) == 0
    replayed = wait_of(mesh, "poison-bad", 2)[1]
    assert replayed["revision"] > failed["revision"]
    assert replayed["complete"]


@pytest.mark.parametrize(("topic", "letters"), [("reviews.accepted", 4), ("reviews.ner", 1)])
def test_junk_in_an_internal_topic_stops_nothing(mesh: Mesh, topic: str, letters: int) -> None:
    mesh.publish_raw(b"junk", partition=2, topic=topic)

    def dead() -> list[str]:
        return [
            d["stage"] for d in mesh.dead_letters() if d["topic"] == topic and not d["review_id"]
        ]

    mesh.wait_for(lambda: len(dead()) >= letters, 30, "the junk is a dead letter of every reader")
    after = reviews(50, tag=f"after-{topic}-")
    mesh.publish(after)
    assert_exactly_once(after, wait_of(mesh, f"after-{topic}-", 50))
    assert len(dead()) == letters
