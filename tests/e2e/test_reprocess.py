"""Answers done again through a whole mesh, with kills and edits in the midst of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import pytest

from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.enrich.reprocess import MAX_IN_FLIGHT
from reviewmesh.local.secure import OPERATOR
from reviewmesh.query import campaigns
from reviewmesh.query.connection import Connection
from reviewmesh_schemas.names import TASKS
from tests.broker import wait_until
from tests.command_line import reviewmesh
from tests.mesh import PARTITIONS, Mesh, review

REVIEWS = 600
EDITED = 40
SOON_S = 60
LONG_S = 180


@pytest.fixture
def connection(mesh: Mesh) -> Connection:
    return mesh.connection(OPERATOR)


def is_old(record: Any) -> bool:
    lineage = record["tasks"]["topic"]["lineage"]
    return lineage is not None and lineage["model_version"] == "1"


def others(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a campaign for topics must leave as it is."""
    tasks = {task: outcome for task, outcome in record["tasks"].items() if task != "topic"}
    return record["text"], record["entities"], record["sentiment"], tasks


def by_review(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        found[record["review_id"]].append(record)
    return found


def test_each_answer_is_done_again_once_whatever_is_killed(
    mesh: Mesh, connection: Connection
) -> None:
    ids = [f"again-{number}" for number in range(REVIEWS)]
    mesh.publish(review(name, f"First version of {name}, said Anna.") for name in ids)
    mesh.wait_enriched(REVIEWS, LONG_S)
    before = by_review(mesh.enriched())
    worker = mesh.processes["worker"]
    worker.terminate()
    worker.environment["SCRIPTED_MODEL_VERSION"] = "2"
    worker.start()
    mesh.wait_ready()
    mesh.script(delay_ms=150)

    chosen = campaigns.choose_reviews(connection, "topic", is_old)
    assert len(chosen) == chosen.read == REVIEWS
    campaign = campaigns.begin(connection, "topic", "model_version < 2", chosen)
    assert campaigns.unfinished(connection, "topic") == campaign
    edited = ids[:: REVIEWS // EDITED]
    mesh.publish(review(name, f"Second version of {name}, said Bob.") for name in edited)
    for service in ("joiner", "enricher-topic"):
        mesh.wait_for(lambda: len(mesh.enriched()) > REVIEWS, SOON_S, "answers done again")
        mesh.processes[service].kill()
        mesh.processes[service].start()
    mesh.script()

    def is_over() -> bool:
        return campaigns.status(connection, campaign).is_over

    mesh.wait_for(is_over, LONG_S, "the campaign is over")
    mesh.wait_for(
        lambda: sum("Second" in r["text"] for r in mesh.enriched()) == len(edited),
        SOON_S,
        "the edits are out",
    )
    after = by_review(mesh.enriched())
    for name in ids:
        first, *again = after[name]
        revisions = [record["revision"] for record in after[name]]
        assert revisions == sorted(set(revisions))
        texts = [record["text"] for record in after[name]]
        assert texts == sorted(texts), "older content came out over newer"
        if name in edited:
            assert "Second" in texts[-1]
            assert len(again) <= 2
            continue
        assert others(first) == others(before[name][0])
        [once] = again
        assert others(once) == others(first)
        assert once["tasks"]["topic"]["lineage"]["model_version"] == "2"
        assert [topic["score"] for topic in once["topics"]] == [0.9]
        assert once["complete"]
    status = campaigns.status(connection, campaign)
    assert status.answered == REVIEWS
    assert status.published + status.dropped == REVIEWS
    assert status.published >= REVIEWS - len(edited)
    assert campaigns.unfinished(connection, "topic") is None
    assert len(campaigns.choose_reviews(connection, "topic", is_old)) == 0


def test_a_campaign_is_paused_resumed_and_cancelled(mesh: Mesh, connection: Connection) -> None:
    enricher = mesh.processes["enricher-topic"]
    chosen = campaigns.choose_reviews(connection, "topic", lambda record: True)
    assert len(chosen) > 2 * MAX_IN_FLIGHT

    def answered() -> int:
        return campaigns.status(connection, campaign).answered

    def is_full() -> bool:
        return enricher.metric("reviewmesh_in_flight_records") >= MAX_IN_FLIGHT

    mesh.script(held=["version"])
    campaign = campaigns.begin(connection, "topic", "revision > 0", chosen)
    mesh.wait_for(is_full, SOON_S, "as many requests as the enricher takes are with the worker")
    campaign = campaigns.change(connection, campaign, PAUSED)
    mesh.wait_for(lambda: '"state": "PAUSED"' in enricher.log.read_text(), SOON_S, "it is told so")
    mesh.script()
    mesh.wait_for(
        lambda: (
            answered() >= MAX_IN_FLIGHT
            and enricher.metric("reviewmesh_in_flight_records") <= PARTITIONS
        ),
        SOON_S,
        "what was with the worker is answered, and one request of each partition is held",
    )
    assert answered() < len(chosen), "requests were taken up while it was paused"
    assert campaigns.unfinished_of_others(connection, "ner") == campaign
    assert campaigns.unfinished_of_others(connection, "topic") is None
    assert all(process.is_ready() for process in mesh.processes.values())

    mesh.script(held=["version"])
    campaign = campaigns.change(connection, campaign, RUNNING)
    mesh.wait_for(is_full, SOON_S, "it goes on")
    campaign = campaigns.change(connection, campaign, CANCELLED)
    told = '"state": "CANCELLED"'
    mesh.wait_for(lambda: told in enricher.log.read_text(), SOON_S, "it is told so")
    assert campaigns.unfinished(connection, "topic") is None
    assert campaigns.unfinished_of_others(connection, "ner") is None
    mesh.script()
    mesh.wait_for(
        lambda: (
            enricher.metric("reviewmesh_in_flight_records") == 0
            and campaigns.status(connection, campaign).is_over
        ),
        SOON_S,
        "the requests that are left are let go of",
    )
    assert answered() < len(chosen)


def test_the_command_line(mesh: Mesh) -> None:
    environment = mesh.processes["intake"].environment

    def run(*words: str) -> Any:
        return reviewmesh(environment, mesh.folder, "reprocess", *words)

    wanted = ("--task", "topic", "--where", "model_version < 2")
    dry = run(*wanted, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stderr.startswith(f"0 of {REVIEWS} reviews match; the oldest that is kept was")
    states = {json.loads(line)["state"] for line in run("status", "--json").stdout.splitlines()}
    assert states == {"done", "cancelled"}
    begun = run("--task", "ner", "--where", "model_version = 2 and ner.model_version < 1d ago")
    assert begun.returncode == 2
    assert "^" in begun.stderr
    begun = run("--task", "ner", "--where", "model_version < 3 and review_id = 'again-7'")
    assert begun.returncode == 0, begun.stderr
    campaign = begun.stdout.strip()

    def state() -> str:
        return str(json.loads(run("status", campaign, "--json").stdout)["state"])

    wait_until(lambda: state() == "done", SOON_S, "the campaign is over")
    listed = [line.split() for line in run("status").stdout.splitlines()]
    assert [campaign, "done", "1", "1", "1", "1", "0"] in listed
    assert run("pause", "nobody-knows").returncode == 1


def test_what_all_of_it_cost(mesh: Mesh) -> None:
    again = Counter(answer["task"] for answer in mesh.read("reviews.reprocessed"))
    assert again["topic"] > REVIEWS and again["ner"] == 1
    written = {task: len(mesh.read(f"reviews.{task}")) + again[task] for task in TASKS}
    environment = mesh.processes["intake"].environment
    words = ("cost", "--by", "task,model,business", "--since", "1d ago", "--json")
    done = reviewmesh(environment, mesh.folder, *words)
    assert done.returncode == 0, done.stderr
    assert "skipped" not in done.stderr and "not kept" not in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["model"] for row in rows} == {"scripted 1", "scripted 2"}
    counted: Counter[str] = Counter()
    for row in rows:
        counted[row["task"]] += row["answers"]
        assert row["attempts"] >= row["answers"]
        # The scripted engine tells no price: that is not nothing.
        assert row["cost_micros"] is None
        assert row["unknown"]["cost_micros"] == row["answers"]
    assert counted == written
