"""The command line as a user runs it: its own process, on the run's broker, a mesh behind it."""

from __future__ import annotations

import io
import json
import os
import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.cli.demo import sample_lines
from reviewmesh.cli.sources.reading import Options, Source
from reviewmesh.cli.sources.review import review_of
from reviewmesh.cli.summary import percentile
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import REPLAY, REPLAY_OF
from reviewmesh.loop.replays import letter_at
from tests.broker import TestStack
from tests.command_line import Run, reviewmesh
from tests.mesh import Mesh


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    with Mesh(stack, prefix, tmp_path) as mesh:
        mesh.start()
        yield mesh


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_review_through_every_command(mesh: Mesh, run: Run) -> None:
    mesh.script(poison=["POISON"])
    published = run(
        "publish",
        "-",
        stdin="\n".join(
            [
                '{"review_id": "c-1", "text": "Anna helped", "created_at": "2026-01-02T03:04:05Z"}',
                '{"text": "no id", "stars": 4}',
                "this is no review",
                '{"review_id": "c-2", "text": "holds POISON"}',
            ]
        ),
    )
    assert published.returncode == 1, published.stderr
    assert "line 3: " in published.stderr
    assert "3 published, 1 refused" in published.stderr
    [generated] = published.stdout.split()

    tailed = run("tail", "--from-beginning", "--max", "3", "--timeout", "40", "--json")
    assert tailed.returncode == 0, tailed.stderr + mesh.report()
    enriched = {record["review_id"]: record for record in _lines(tailed.stdout)}
    assert set(enriched) == {"c-1", "c-2", generated}
    assert enriched["c-1"]["created_at"] == "2026-01-02T03:04:05.000Z"
    assert enriched["c-1"]["source"] == "cli"
    assert enriched["c-1"]["entities"][0]["text"] == "Anna"
    assert not enriched["c-2"]["complete"]

    chosen = run(
        *("tail", "--from-beginning", "--max", "1", "--timeout", "40", "--json"),
        *("--where", 'not complete and topic.status = "FAILED"'),
    )
    assert [record["review_id"] for record in _lines(chosen.stdout)] == ["c-2"], chosen.stderr

    too_few = run("tail", "--from-beginning", "--max", "4", "--timeout", "1")
    assert too_few.returncode == 1
    assert "3 of 4 records" in too_few.stderr

    found = run("find", "c-1")
    assert found.returncode == 0, found.stderr
    for topic in ("raw", "accepted", "ner", "topic", "sentiment", "enriched"):
        assert re.search(rf"^{topic} +\d/\d+ ", found.stdout, re.M)
    records = _lines(run("find", "c-1", "--json").stdout)
    assert {record["topic"] for record in records} >= {f"{mesh.prefix}reviews.enriched"}
    assert re.search(r"revision \d+, complete", found.stdout)
    assert run("find", "nobody").returncode == 1

    mesh.wait_for(lambda: _unfinished(run) == 0, 20, "no lag")
    _replays_the_poisoned(mesh, run)
    _forgets_an_open_one(mesh, run)


def _unfinished(run: Run) -> int:
    rows = json.loads(run("lag", "--json").stdout)
    assert len(rows) == (1 + 3 + 4) * 6
    assert all(row["seconds"] == 0 for row in rows if row["unfinished"] == 0)
    return sum(row["unfinished"] for row in rows)


def _replays_the_poisoned(mesh: Mesh, run: Run) -> None:
    letters = _lines(run("dlq", "list", "--json").stdout)
    assert {letter["review_id"] for letter in letters} == {"c-2"}
    shown = json.loads(run("dlq", "show", letters[0]["place"]).stdout)
    assert shown["topic"] == "reviews.accepted"

    mesh.script()
    replayed = run("dlq", "replay", letters[0]["place"])
    assert replayed.returncode == 0, replayed.stderr
    assert "1 replayed" in replayed.stderr
    of_replayed = [item for item in mesh.wait_enriched(4) if item["review_id"] == "c-2"]
    assert [item["complete"] for item in of_replayed] == [False, True]
    assert of_replayed[0]["revision"] < of_replayed[1]["revision"]


def _forgets_an_open_one(mesh: Mesh, run: Run) -> None:
    mesh.script(poison=["SECRET"])
    assert run("publish", "-", stdin='{"review_id": "c-3", "text": "SECRET"}').returncode == 0
    mesh.wait_enriched(5)
    mesh.script()
    listed = json.loads(run("forget", "c-3", "--json").stdout)
    assert listed["replaceable"] and listed["replaced_at"] is None
    of_all = _lines(run("dlq", "list", "--json").stdout)
    letters = [item for item in of_all if item["review_id"] == "c-3"]
    records = {item["topic"].removeprefix(mesh.prefix): item for item in listed["records"]}
    held = ("raw", "accepted", "ner", "topic", "sentiment", "enriched", "partial", "dead-letter")
    assert set(records) == {f"reviews.{name}" for name in held}
    assert [name for name, item in records.items() if item["no_time"]] == ["reviews.partial"]
    letter = records["reviews.dead-letter"]
    written, gone = (datetime.fromisoformat(letter[name]) for name in ("time", "deleted_by"))
    # 14 days, 6 hours of an open segment, and the broker's own minutes.
    assert timedelta(days=14, hours=6) < gone - written < timedelta(days=14, hours=7)

    done = run("forget", "c-3", "--yes")
    assert done.returncode == 0, done.stderr
    assert '"(erased)" comes out as a newer version' in done.stdout
    [*_, last] = [item for item in mesh.wait_enriched(6) if item["review_id"] == "c-3"]
    assert (last["text"], last["complete"]) == ("(erased)", True)
    assert last["erased_at"] is not None
    # The joiner erases its open partial record itself.
    after = json.loads(run("forget", "c-3", "--json").stdout)["records"]
    [*_, partial] = [item for item in after if item["topic"].endswith("reviews.partial")]
    assert partial["outcome"] == "tombstone"
    assert run("forget", "nobody").returncode == 1
    _replays_bring_nothing_back(mesh, run, letters)


def _replays_bring_nothing_back(mesh: Mesh, run: Run, letters: list[dict[str, Any]]) -> None:
    places = [letter["place"] for letter in letters]
    refused = run("dlq", "replay", *places)
    assert refused.returncode == 0, refused.stderr
    assert "0 replayed, 3 skipped whose reviews were erased since" in refused.stderr
    # As a command that was asked before the erasure sends it.
    producer = mesh.producer()
    for letter in letters:
        key, value = (b64decode(letter[name]) for name in ("key", "value"))
        name = letter_at(letter["place"], 0, key, value).name
        producer.produce(
            f"{mesh.prefix}{letter['topic']}",
            key=key,
            value=value,
            partition=letter["partition"],
            headers={REPLAY: b"all", REPLAY_OF: name.encode()},
        )
    assert producer.flush(30) == 0
    joiner = mesh.processes["joiner"]
    sample = 'reviewmesh_erased_replays_dropped_total{service="joiner"}'
    mesh.wait_for(lambda: joiner.metric(sample) == len(letters), 30, "replays that were dropped")
    mesh.publish_raw(None, key=b"c-1", partition=partition_of(b"c-1", 6))
    [*_, erased] = [item for item in mesh.wait_enriched(7) if item["review_id"] == "c-1"]
    assert erased["text"] == "(erased)"
    texts = [item["text"] for item in mesh.enriched() if item["review_id"] == "c-3"]
    assert texts == ["SECRET", "(erased)"]


def test_exit_codes_say_what_went_wrong(run: Run, tmp_path: Path) -> None:
    assert run("publish", "missing.jsonl").returncode == 2
    assert run("tail", "--topic", "nothing").returncode == 2
    assert run("tail", "--topic", "raw", "--where", "complete").returncode == 2
    wrong = run("tail", "--where", 'stars < "x"')
    assert (wrong.returncode, "expected one such as 4" in wrong.stderr) == (2, True), wrong.stderr
    assert run("dlq", "replay").returncode == 2
    assert run("topics", "list").returncode == 1
    alone = {name: text for name, text in os.environ.items() if "REVIEWMESH" not in name}
    nowhere = reviewmesh(alone, tmp_path, "lag")
    assert nowhere.returncode == 3
    assert "reviewmesh up" in nowhere.stderr
    for name in ("REVIEWMESH_KAFKA__BOOTSTRAP_SERVER", "REVIEWMESH_REGISTRY__PASSWRD"):
        for command in ("lag", "up"):
            refused = reviewmesh(alone | {name: "hunter2"}, tmp_path, command)
            assert refused.returncode == 2
            assert name in refused.stderr and "hunter2" not in refused.stderr
    unreachable = alone | {"REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    assert reviewmesh(unreachable, tmp_path, "lag").returncode == 3


def test_lag_counts_what_no_service_has_read(stack: TestStack, run: Run) -> None:
    assert run("topics", "apply").returncode == 0
    assert run("topics", "list").returncode == 0
    listed = _lines(run("topics", "list", "--json").stdout)
    assert all(topic["partitions"] == topic["found_partitions"] for topic in listed)
    assert run("publish", "-", stdin='{"review_id": "late", "text": "t"}\n').returncode == 0
    rows = json.loads(run("lag", "--json").stdout)
    [behind] = [row for row in rows if row["unfinished"]]
    assert behind["group"].endswith("reviewmesh-intake")
    assert (behind["lag"], behind["unfinished"]) == (1, 1)
    assert behind["seconds"] > 0
    assert "waits for intake" in run("find", "late").stdout


def test_samples_are_reviews_with_one_repetition_and_one_edit() -> None:
    source = Source(io.BytesIO("\n".join(sample_lines()).encode()), Options())
    parsed = [review_of(row.fields or {}, 0, ()) for row in source.rows()]
    assert len(parsed) >= 220
    assert len({review["language"] for review in parsed}) >= 10
    assert len(parsed) - len({review["review_id"] for review in parsed}) == 2
    contents = {(review["review_id"], review["text"]) for review in parsed}
    assert len(parsed) - len(contents) == 1


def test_percentiles_are_nearest_ranks() -> None:
    assert [percentile(list(range(1, 101)), percent) for percent in (50, 95, 99)] == [50, 95, 99]
    assert percentile([3], 99) == 3
    assert percentile([], 50) is None
