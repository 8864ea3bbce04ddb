"""The commands on what anybody may have written to the topics; no service runs here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import FORWARDED_FROM, REPLAY, REPLAY_OF, REPLAY_SINCE
from reviewmesh.loop.replays import digest_of
from tests.broker import TestStack, wait_until
from tests.command_line import Run, reviewmesh
from tests.mesh import PARTITIONS, Mesh, review

Put = Callable[..., None]
NEVER = 2**63 - 1
ESCAPES = "\x1b[2J \x9b31m \u202e gnp"


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path) -> Mesh:
    mesh = Mesh(stack, prefix, tmp_path)
    mesh.apply_topics()
    return mesh


@pytest.fixture
def put(mesh: Mesh) -> Put:
    """Write one record, as a value or as what a codec encodes."""

    def put(
        topic: str,
        key: str,
        value: bytes | dict[str, Any] | None,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        if isinstance(value, dict):
            value = mesh.codec(topic).encode(value)
        producer = Producer(mesh.kafka)
        place = partition_of(key.encode(), PARTITIONS)
        producer.produce(mesh.prefix + topic, value, key.encode(), place, headers=headers or [])
        assert producer.flush(30) == 0

    return put


def letter(review_id: str, **fields: Any) -> dict[str, Any]:
    content = {"topic": "reviews.raw", "partition": 0, "offset": 0, "review_id": review_id}
    return content | {"stage": "intake", "cause": "EMPTY", "message": "m", "headers": []} | fields


def enriched(review_id: str) -> dict[str, Any]:
    tasks = {
        "ner": {"task": "ner", "status": "TIMEOUT"},
        "topic": {"task": "topic", "status": "OK"},
    }
    return {
        "review_id": review_id,
        "content_hash": "h",
        "text": "t",
        "accepted_partition": 0,
        "accepted_offset": 0,
        "source_topic": "reviews.raw",
        "source_partition": 0,
        "source_offset": 0,
        "revision": 1,
        "complete": False,
        "tasks": tasks,
    }


def test_find_shows_an_incomplete_review_and_what_odd_headers_hide(put: Put, run: Run) -> None:
    for header in (b"garbage", b"a/b/c", b"reviews.raw/1/" + b"9" * 400, b"\xff/\xff/1", b"", None):
        put("reviews.raw", "odd", review("odd", "t"), [(FORWARDED_FROM, header)])
    put("reviews.raw", "odd", b"\x00\x00\x00\x00\x01broken odd")
    put("reviews.raw", "odd", None)
    put("reviews.accepted", "odd", b"no record")
    put("reviews.accepted", "odd", None)
    put("reviews.enriched", "odd", enriched("odd"))
    partial = {"review_id": "odd", "content_hash": "h", "accepted_offset": 7, "enriched": b"x"}
    put("reviews.partial", "odd", partial)

    found = run("find", "odd")

    assert found.returncode == 0, found.stderr
    assert found.stdout.count("waits for intake") == 7
    assert found.stdout.count("tombstone") == 2
    assert "revision 1, ner TIMEOUT" in found.stdout
    assert "waits for answers on accepted offset 7" in found.stdout
    assert "Confluent wire format" in found.stdout


@pytest.mark.parametrize("review_id", ["[/b] closing", "[red]hotel[/red]", "[link=x]y"])
def test_ids_that_look_like_markup_are_shown_whole(put: Put, run: Run, review_id: str) -> None:
    put("reviews.dead-letter", review_id, letter(review_id, message=review_id, cause=review_id))
    put("reviews.raw", review_id, review(review_id, review_id))

    listed, found = run("dlq", "list"), run("find", review_id)
    tailed = run("tail", "--topic", "raw", "--from-beginning", "--max", "1", "--timeout", "20")

    for done in (listed, found, tailed):
        assert done.returncode == 0, done.stderr
    assert listed.stdout.count(review_id) == 3
    assert review_id in found.stdout and review_id in tailed.stdout
    assert review_id in run("find", f"{review_id} not here").stderr
    assert run("dlq", "show", review_id).returncode == 2
    assert run("tail", "--topic", review_id).returncode == 2


def test_control_characters_and_impossible_times_are_shown_as_text(put: Put, run: Run) -> None:
    put("reviews.raw", "r", b"\x00\x00\x00\x00\x01\x9b31m")
    put("reviews.raw", "r", review("r", ESCAPES, created_at=NEVER, stars=float("nan")))
    put("reviews.dead-letter", "r", letter(ESCAPES, message=ESCAPES, read_at=-NEVER, topic=ESCAPES))

    raw = ("tail", "--topic", "raw", "--from-beginning", "--max", "1", "--timeout", "20")
    done = [
        run(*raw),
        run(*raw, "--json"),
        run("dlq", "list"),
        run("dlq", "list", "--json"),
        run("dlq", "show", f"{partition_of(b'r', PARTITIONS)}/0"),
        run("find", "r"),
    ]

    for each in done:
        assert each.returncode == 0, each.stderr
        assert not {"\x1b", "\x9b", "\u202e"} & set(each.stdout + each.stderr)
    tailed = json.loads(done[1].stdout)
    assert (tailed["text"], tailed["created_at"], tailed["stars"]) == (ESCAPES, NEVER, "nan")
    for each in done[3:5]:
        shown = json.loads(each.stdout)
        assert (shown["message"], shown["read_at"]) == (ESCAPES, -NEVER)


def test_outputs_that_are_closed_or_ascii_are_no_failure(
    stack: TestStack, prefix: str, put: Put, tmp_path: Path
) -> None:
    put("reviews.dead-letter", "r", letter("é" * 500, message="\u2026" * 100))
    environment = {
        **os.environ,
        **stack.environment(),
        "REVIEWMESH_PREFIX": prefix,
        "PYTHONIOENCODING": "ascii",
    }
    listed = reviewmesh(environment, tmp_path, "dlq", "list")
    assert listed.returncode == 0, listed.stderr
    assert "\\u2026" in listed.stdout
    command = f"exec {sys.executable} -m reviewmesh.cli lag --json >&-"
    closed = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert closed.returncode == 0, closed.stderr


def partitions(mesh: Mesh, admin: AdminClient) -> list[int]:
    name = mesh.prefix + "reviews.raw"
    return list(admin.list_topics(name, timeout=10).topics[name].partitions)


def test_partitions_that_were_added_to_raw_are_read_too(mesh: Mesh, run: Run) -> None:
    admin = AdminClient({**mesh.kafka})
    more = NewPartitions(mesh.prefix + "reviews.raw", PARTITIONS + 2)
    for done in admin.create_partitions([more]).values():
        done.result(10)
    wait_until(lambda: len(partitions(mesh, admin)) == PARTITIONS + 2, 30, "the new partitions")
    value = mesh.codec("reviews.raw").encode(review("far", "t"))
    mesh.publish_raw(value, b"far", PARTITIONS + 1)

    found = run("find", "far")
    tailed = run("tail", "--topic", "raw", "--from-beginning", "--max", "1", "--timeout", "20")

    assert (found.returncode, tailed.returncode) == (0, 0), found.stderr + tailed.stderr
    assert "waits for intake" in found.stdout
    assert run("publish", "-", stdin='{"review_id": "near", "text": "t"}').returncode == 0
    [near] = [sent for sent in mesh.read("reviews.raw") if sent["review_id"] == "near"]
    assert near["_partition"] == partition_of(b"near", PARTITIONS)


def test_a_review_behind_an_open_transaction_is_not_told_as_lost(
    mesh: Mesh, put: Put, run: Run
) -> None:
    place = partition_of(b"behind", PARTITIONS)
    foreign = Producer(mesh.kafka | {"transactional.id": f"{mesh.prefix}foreign"})
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(mesh.prefix + "reviews.raw", b"?", b"other", place)
    assert foreign.flush(30) == 0
    put("reviews.raw", "behind", review("behind", "Anna was great."))
    words = f"reviews.raw/{place}: a transaction that a producer left open at offset 0 holds up"
    found = run("find", "behind")
    assert found.returncode == 1
    assert words in " ".join(found.stderr.split())
    assert words in " ".join(run("lag").stderr.split())
    foreign.abort_transaction(30)
    found = run("find", "behind")
    assert "waits for intake" in found.stdout and "left open" not in found.stderr


def test_a_commit_beyond_the_end_is_of_a_topic_that_is_gone(mesh: Mesh, put: Put, run: Run) -> None:
    place = partition_of(b"anew", PARTITIONS)
    consumer = Consumer(mesh.kafka | {"group.id": f"{mesh.prefix}reviewmesh-intake"})
    gone = TopicPartition(mesh.prefix + "reviews.raw", place, 1_000)
    consumer.commit(offsets=[gone], asynchronous=False)
    consumer.close()
    put("reviews.raw", "anew", review("anew", "Anna was great."))
    assert "waits for intake" in run("find", "anew").stdout


def test_a_replay_says_which_letter_it_is_of_and_that_letter_is_told_apart(
    mesh: Mesh,
    put: Put,
    run: Run,
) -> None:
    value = mesh.codec("reviews.raw").encode(review("r", "t"))
    headers = [{"key": "kept", "value": b"1"}, {"key": REPLAY_OF, "value": b"3/4"}]
    put("reviews.dead-letter", "r", letter("r", key=b"r", value=value, headers=headers))
    put("reviews.dead-letter", "r", letter("elsewhere", topic="__consumer_offsets"))
    put("reviews.dead-letter", "r", letter("elsewhere", partition=-1))
    place = partition_of(b"r", PARTITIONS)

    replayed = run("dlq", "replay", "--all")

    assert replayed.returncode == 1
    assert "1 replayed" in replayed.stderr
    assert f"{place}/1 cannot be replayed: it was read from '__consumer_offsets'" in replayed.stderr
    assert f"{place}/2 cannot be replayed: no topic has a partition -1" in replayed.stderr
    [sent] = mesh.read("reviews.raw")
    assert sent["_headers"].keys() == {"kept", REPLAY, REPLAY_OF, REPLAY_SINCE}
    assert sent["_headers"][REPLAY] == b"all"
    named = sent["_headers"][REPLAY_OF].decode()
    assert named.startswith(f"{place}/0/")
    assert named.split("/")[2] == sent["_headers"][REPLAY_SINCE].decode()
    assert named.endswith(f"/{digest_of(b'r', value)}")
    first = json.loads(run("dlq", "list", "--json").stdout.splitlines()[0])
    assert (first["replay_of"], first["replayed"]) == ("3/4", False)
    assert " of 3/4 " in run("dlq", "list").stdout


def test_publish_reports_every_bad_line_and_sends_the_rest(
    mesh: Mesh,
    run: Run,
    tmp_path: Path,
) -> None:
    bad = [
        b'{"text": "t", "stars": ' + b"1" * 5_000 + b"}",
        b'{"text": ' + b"[" * 100_000,
        b'{"text": "caf\xe9"}',
        b'{"text": "t", "created_at": 1672913472}',
        b'{"text": "' + b"x" * 1_100_000 + b'"}',
        b"\x1b[2J\xc2\x9b31m",
    ]
    good = [
        b'\xef\xbb\xbf{"review_id": "first", "text": "t"}',
        b'{"review_id": "last", "text": "t"}',
    ]
    file = tmp_path / "reviews.jsonl"
    file.write_bytes(b"\r\n".join([good[0], *bad, good[1]]))

    done = run("publish", str(file))

    assert done.returncode == 1
    assert "2 published, 6 refused" in done.stderr
    assert not {"\x1b", "\x9b"} & set(done.stderr)
    said = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert said[:6] == [f"line {number}" for number in range(2, 8)]
    assert {sent["review_id"] for sent in mesh.read("reviews.raw")} == {"first", "last"}
