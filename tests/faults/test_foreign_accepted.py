"""Records in reviews.accepted that intake did not write stop no enricher and no joiner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.broker import TestStack
from tests.mesh import Mesh, assert_exactly_once, reviews

ENRICHERS_AND_JOINER = 4


@pytest.fixture
def mesh(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    with Mesh(breakable_stack, prefix, tmp_path) as mesh:
        mesh.start(120)
        yield mesh


def test_each_foreign_record_costs_itself_only(mesh: Mesh) -> None:
    example = resources.files("reviewmesh_schemas").joinpath("examples/accepted_review.json")
    (whole,) = json.loads(example.read_text())
    codec = mesh.codec("reviews.accepted")
    readable: dict[str, dict[str, Any]] = {
        "no text": {**whole, "review_id": "no text", "text": None},
        "": {**whole, "review_id": ""},
        "other key": {**whole, "review_id": "not its key"},
    }
    unreadable: dict[bytes | None, bytes | None] = {
        b"tombstone": None,
        b"garbage": b"garbage",
        b"cut": codec.encode({**whole, "review_id": "cut"})[:-5],
        None: b"",
        b"\xff": b"\0\0\0\0\1",
    }
    before, after = reviews(60, tag="before"), reviews(60, tag="after")
    mesh.publish(before)
    for key, value in unreadable.items():
        mesh.publish_raw(value, key, topic="reviews.accepted")
    for name, record in readable.items():
        mesh.publish_raw(codec.encode(record), name.encode(), topic="reviews.accepted")
    mesh.publish(after)
    expected = len(before) + len(after) + len(readable)
    ours = [
        record
        for record in mesh.wait_enriched(expected)
        if record["review_id"].startswith(("before", "after"))
    ]
    assert_exactly_once([*before, *after], ours)
    mesh.wait_for(
        lambda: len(mesh.dead_letters()) >= ENRICHERS_AND_JOINER * len(unreadable),
        30,
        "each of the four makes its dead letters",
    )
    assert len(mesh.enriched()) == expected
    assert all(process.is_ready() for process in mesh.processes.values())
