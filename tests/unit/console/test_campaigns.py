"""The screen of campaigns."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reviewmesh.console.campaigns import PACE_S, CampaignWatch, outcomes_of
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.processes import ProcessState, Sample
from reviewmesh.console.watch import Picture
from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.query.campaigns import Campaign, Status
from reviewmesh.settings import Settings
from tests.unit.console.page import kept, page, text_of

HOSTILE = "<img src=x onerror=alert(1)>"
NOW_MS = int(time.time() * 1000)


def campaign(state: str = RUNNING, name: str = "topic-1", where: str = "stars < 3") -> Campaign:
    return Campaign(name, "topic", where, state, 1_000, {}, NOW_MS)


def status(of: Campaign, published: int, dropped: int = 0, sent: int = 1_000) -> Status:
    return Status(of, sent, published + dropped, published, dropped)


def watch() -> CampaignWatch:
    return CampaignWatch(Mesh(Settings()))


def test_progress_pace_and_what_is_left(tmp_path: Path) -> None:
    watched, running = watch(), campaign()
    watched.seen([(running, status(running, 100, 50))], 0.0)
    shown = watched.seen([(running, status(running, 300, 50))], 10.0)
    assert shown[0].left_s == pytest.approx(650 / 20)
    said = text_of(page(tmp_path, campaigns=kept(shown)).get("/campaigns").text)
    assert "topic-1 : running" in said
    assert "35 % done: 350 of 1,000 reviews. 20.0 a second, 32.5 s left at this pace." in said
    assert "published 300" in said and "dropped 50" in said and "1,000 sent" in said
    assert "reviewmesh reprocess pause topic-1" in said


def test_the_pace_is_that_of_the_last_minute() -> None:
    watched, running = watch(), campaign()
    watched.seen([(running, status(running, 0))], 0.0)
    watched.seen([(running, status(running, 900))], 1.0)
    [shown] = watched.seen([(running, status(running, 900))], PACE_S + 2)
    assert shown.per_s is None
    [shown] = watched.seen([(running, status(running, 900))], PACE_S + 10)
    assert (shown.per_s, shown.left_s) == (0.0, float("inf"))


@pytest.mark.parametrize(
    ("state", "published", "sent", "words", "commands"),
    [
        (PAUSED, 10, 1_000, "paused", ["go on", "cancel"]),
        (RUNNING, 10, 500, "running, not all sent", ["pause", "cancel"]),
        (RUNNING, 1_000, 1_000, "done", []),
        (CANCELLED, 10, 500, "cancelled", []),
    ],
)
def test_states_in_words(
    state: str, published: int, sent: int, words: str, commands: list[str]
) -> None:
    one = campaign(state)
    [shown] = watch().seen([(one, status(one, published, sent=sent))], 0.0)
    assert shown.state == words
    assert [name for name, _ in shown.commands] == commands
    assert shown.left_s is None


def test_one_whose_records_expired_is_not_counted(tmp_path: Path) -> None:
    shown = watch().seen([(campaign(), None)], 0.0)
    said = text_of(page(tmp_path, campaigns=kept(shown)).get("/campaigns").text)
    assert "over: its records expired" in said and "no longer kept" in said


def test_newest_first_and_one_by_its_name(tmp_path: Path) -> None:
    ones = [campaign(name=name) for name in ("topic-1", "ner-2")]
    shown = watch().seen([(one, status(one, 0)) for one in ones], 0.0)
    client = page(tmp_path, campaigns=kept(shown))
    said = text_of(client.get("/campaigns").text)
    assert said.index("ner-2") < said.index("topic-1")
    assert "ner-2" not in text_of(client.get("/campaigns?campaign=topic-1").text)
    assert "No campaign is called third." in text_of(client.get("/campaigns?campaign=third").text)


def test_without_any_it_says_how_to_begin(tmp_path: Path) -> None:
    said = text_of(page(tmp_path, campaigns=kept([])).get("/campaigns").text)
    assert "reviewmesh reprocess --task topic --where 'model_version < 3' --dry-run" in said


def test_conditions_and_names_are_text(tmp_path: Path) -> None:
    hostile = campaign(name=HOSTILE, where=HOSTILE)
    shown = watch().seen([(hostile, status(hostile, 0))], 0.0)
    assert HOSTILE not in page(tmp_path, campaigns=kept(shown)).get("/campaigns").text


def test_outcomes_are_those_of_all_joiners() -> None:
    metric = "reviewmesh_reprocessed_answers_total"
    joiners = tuple(
        ProcessState(
            name,
            "",
            True,
            "ready",
            0.0,
            samples=(
                Sample(metric, {"task": "topic", "outcome": "superseded"}, 2.0),
                Sample(metric, {"task": "ner", "outcome": "failed"}, 0.0),
            ),
        )
        for name in ("joiner", "joiner-2")
    )
    assert outcomes_of(Picture(processes=joiners)) == [
        ("topic", {"published": 0, "superseded": 4, "failed": 0, "unproven": 0})
    ]


def test_a_mesh_that_is_away_is_named(tmp_path: Path) -> None:
    said = text_of(page(tmp_path).get("/campaigns").text)
    assert "did not answer" in said and "There are no campaigns" not in said
