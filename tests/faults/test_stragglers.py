"""Reviews that thousands overtake: those on their way are waited for, those gone are given up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.kafka.partitioning import partition_of
from tests.broker import TestStack
from tests.faults.test_operators import Operator
from tests.mesh import PARTITIONS, Mesh, assert_exactly_once, review, reviews

STRAGGLER_S = 1.0
WAITING = 4_500
EDITED_EVERY = 10


@pytest.fixture
def mesh(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    with Mesh(
        breakable_stack, prefix, tmp_path, {"REVIEWMESH_JOIN__STRAGGLER_S": str(STRAGGLER_S)}
    ) as mesh:
        mesh.start(120)
        yield mesh


def with_edits(first: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each review that is edited is followed by its edit, a hundred reviews later."""
    published: list[dict[str, Any]] = []
    for number, item in enumerate(first):
        published.append(item)
        if number >= 100 and number % EDITED_EVERY == 0:
            edited = first[number - 100]
            published.append(edited | {"text": edited["text"] + " Edited."})
    return published


def test_a_backlog_with_edits_leaves_no_review_incomplete(mesh: Mesh) -> None:
    held = [review(f"held-{number}", f"held {number}") for number in range(30)]
    published = with_edits([*held, *reviews(WAITING)])
    mesh.script(delay_ms=50, held=["held"])
    mesh.publish(published)
    asked = "reviewmesh_enrichers_asked_total"
    rounds = count()

    def joiner_asks() -> bool:
        # Only time in which results arrive counts: all of the backlog may come within a second.
        more = reviews(12, tag=f"later-{next(rounds)}")
        mesh.publish(more)
        published.extend(more)
        return mesh.processes["joiner"].metric(asked) > 0

    mesh.wait_for(joiner_asks, 120, "the joiner asks an enricher")
    mesh.script(delay_ms=20)
    assert_exactly_once(published, mesh.wait_enriched(len(published), 240))


def test_a_review_whose_result_is_gone_comes_out_without_it(mesh: Mesh) -> None:
    operator = Operator(mesh)
    mesh.processes["joiner"].kill()
    lost = [item for item in reviews(60, tag="lost") if home(item) == 0]
    mesh.publish(lost)
    mesh.wait_for(lambda: len(mesh.read("reviews.sentiment")) == len(lost), 30, "their results")
    operator.delete_records("reviews.sentiment", 0, operator.end("reviews.sentiment", 0))
    mesh.processes["joiner"].start()
    later: list[dict[str, Any]] = []

    rounds = count()

    def given_up() -> bool:
        more = [item for item in reviews(12, tag=f"later-{next(rounds)}") if home(item) == 0]
        mesh.publish(more)
        later.extend(more)
        return sum(not record["complete"] for record in mesh.enriched()) == len(lost)

    mesh.wait_for(given_up, 90, "those without a result are given up")
    published = [*lost, *later]
    by_id = {record["review_id"]: record for record in mesh.wait_enriched(len(published))}
    assert {item["review_id"] for item in lost} == {
        name for name, record in by_id.items() if not record["complete"]
    }
    for item in lost:
        tasks = by_id[item["review_id"]]["tasks"]
        assert {task: outcome["status"] for task, outcome in tasks.items()} == {
            "ner": "OK",
            "topic": "OK",
            "sentiment": "TIMEOUT",
        }


def home(item: dict[str, Any]) -> int:
    return partition_of(item["review_id"].encode(), PARTITIONS)
