"""Defects that nobody foresaw: a stage that stands still, and records that end the process."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from reviewmesh_kit.exit_codes import STANDS_STILL
from tests.broker import TestStack
from tests.mesh import Mesh, Process, assert_exactly_once, review, reviews
from tests.nightly import but_nightly

NOT_READY_WITHIN_S = 60
ENDS_WITHIN_S = 120
RESTARTS_AT_MOST = 30
KILLS = 20


@pytest.fixture
def mesh(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    with Mesh(breakable_stack, prefix, tmp_path) as mesh:
        mesh.start()
        yield mesh


def replace(mesh: Mesh, name: str, defect: str) -> Process:
    mesh.processes[name].terminate()
    process = mesh.add(name, defect=defect)
    process.start()
    return process


def test_a_consumer_that_its_group_leaves_out_is_replaced(mesh: Mesh) -> None:
    left_out = replace(mesh, "joiner", "is-left-out")
    published = reviews(60)
    mesh.publish(published)

    def says_so() -> bool:
        status, body = left_out.get("/readyz")
        return status == 503 and "partitions from the group's coordinator, for" in body

    mesh.wait_for(says_so, 30, "it says that it has no partitions")
    assert_exactly_once(published, mesh.wait_enriched(60))
    assert "the group has given no partitions" in left_out.log.read_text()
    mesh.wait_for(left_out.is_ready, 30, "it is ready")


def test_a_stage_that_stands_still_says_so_and_ends(mesh: Mesh) -> None:
    """Intake in a call that never returns, an enricher that takes records and forgets them."""
    first = reviews(20, tag="before")
    mesh.publish(first)
    mesh.wait_enriched(20)
    swallowing = replace(mesh, "enricher-ner", "swallows")
    mesh.wait_for(swallowing.is_ready, 30, "it is ready")
    second = reviews(20, tag="meanwhile")
    mesh.publish(second)
    mesh.wait_for(lambda: len(mesh.read("reviews.topic")) == 40, 30, "the others go on")
    hanging = replace(mesh, "intake", "hangs")
    third = reviews(20, tag="later")
    mesh.publish(third)

    def says(process: Process, words: str) -> bool:
        status, body = process.get("/readyz")
        return status == 503 and words in json.loads(body)["waiting_for"]

    mesh.wait_for(
        lambda: says(swallowing, "reviews.accepted/"), NOT_READY_WITHIN_S, "it says what waits"
    )
    mesh.wait_for(
        lambda: says(hanging, "made no iteration"),
        NOT_READY_WITHIN_S,
        "the hanging one is not ready",
    )
    for process in (swallowing, hanging):
        assert process.wait(ENDS_WITHIN_S) == STANDS_STILL
        mesh.add(process.name).start()
    assert_exactly_once([*first, *second, *third], mesh.wait_enriched(60))
    assert mesh.dead_letters() == []


@pytest.mark.parametrize("name", but_nightly(["intake", "enricher-topic", "joiner"], ["intake"]))
def test_a_record_that_ends_the_process_is_set_aside_and_no_other(mesh: Mesh, name: str) -> None:
    good = [*reviews(150, tag="a"), *reviews(150, tag="b")]
    deadly = [
        review(f"deadly-{number}", "There is poison in it, said Anna.") for number in range(2)
    ]
    process = replace(mesh, name, "dies-of-poison")
    mesh.publish([*good[:150], *deadly, *good[150:]])

    def is_over() -> bool:
        if process.popen is not None and process.popen.poll() is not None:
            restarts.append(time.monotonic())
            assert len(restarts) <= RESTARTS_AT_MOST, "it ends again and again"
            process.start()
        out = {record["review_id"] for record in mesh.enriched()}
        return out >= {item["review_id"] for item in good} and len(mesh.dead_letters()) >= 2

    restarts: list[float] = []
    mesh.wait_for(is_over, 200, "the good ones are out, the deadly ones dead letters")
    letters = mesh.dead_letters()
    assert len(letters) == 2
    assert {letter["cause"] for letter in letters} == {"UNREADABLE"}
    assert all(b"poison" in letter["value"] for letter in letters)
    print(f"{name}: {len(restarts)} restarts")
    if name == "enricher-topic":
        mesh.wait_for(lambda: len(mesh.enriched()) == 302, 30, "the deadly ones come out, too")
        failed = [record for record in mesh.enriched() if not record["complete"]]
        assert {record["review_id"] for record in failed} == {"deadly-0", "deadly-1"}
        assert {record["tasks"]["topic"]["status"] for record in failed} == {"FAILED"}


def is_past(moment: float) -> bool:
    return time.monotonic() > moment


def test_kills_at_random_set_nothing_aside(mesh: Mesh, seed: int) -> None:
    chance = random.Random(seed)
    published = reviews(4_000, tag=f"k{seed}")
    mesh.script(delay_ms=40)
    mesh.publish(published)
    for _ in range(KILLS):
        process = mesh.processes[chance.choice(["intake", "enricher-ner", "joiner"])]
        process.kill()
        process.start()
        # Some die before they are ready, some at work.
        lives_until = time.monotonic() + chance.uniform(0.3, 2.5)
        mesh.wait_for(partial(is_past, lives_until), 5, "its time is over")
    mesh.script()
    assert_exactly_once(published, mesh.wait_enriched(len(published), 120))
    assert mesh.dead_letters() == []
