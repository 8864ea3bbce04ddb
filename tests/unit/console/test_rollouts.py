"""The screen of rollouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reviewmesh.console.rollouts import rollout_shown
from reviewmesh.enrich.rollouts import CANARY, DONE, READY, ROLLED_BACK, SHADOW
from reviewmesh.judge.rollout import Look, RolloutRecord
from tests.unit.console.page import kept, page, text_of

HOSTILE = "<script>window.owned=1</script>"
RECORD = RolloutRecord(
    task="topic",
    rollout="topic-1",
    epoch=4,
    state=SHADOW,
    share=1.0,
    reason="started by a command",
    verdict="412 pairs compared, 500 are wanted",
    bounds='{"disagreement": 0.25, "steps": [0.01, 0.5], "hours": 1}',
    model="encoder@2",
    started_at=1_760_000_000_000,
    stage_at=1_760_000_000_000,
    answered=10_020,
    compared=412,
    slices=("da",),
    looks=(
        Look(1_760_000_000_000, SHADOW, "disagreement", "all", 97, 0.0, 0.0, 0.093),
        Look(1_760_000_060_000, SHADOW, "disagreement", "all", 213, 0.1, 0.05, 0.3),
        Look(1_760_000_060_000, SHADOW, "disagreement", "da", 30, 0.0, 0.0, 0.321),
    ),
)


def text(tmp_path: Path, *epochs: RolloutRecord, query: str = "") -> str:
    client = page(tmp_path, rollouts=kept({"topic": list(epochs)}))
    answer = client.get(f"/rollouts{query}")
    assert answer.status_code == 200
    return text_of(answer.text)


def test_where_it_is_what_was_compared_and_what_comes_next(tmp_path: Path) -> None:
    said = text(tmp_path, RECORD)
    assert "topic: shadow at 100 % of the reviews" in said
    assert "412 of 10,020 answers in shadow" in said
    assert "It waits: 412 pairs compared, 500 are wanted." in said
    assert "Then the candidate answers 1 % of the reviews." in said
    assert "ends unless ready 2025-10-09T09:53:20.000Z" in said
    assert "reviewmesh rollout abort --task topic --epoch 4" in said
    assert "disagreement: may still be above 0.25, or below" in said
    assert "da, last 30" in said
    assert "Read " in said and " ago." in said


@pytest.mark.parametrize(
    ("state", "step", "following"),
    [
        (CANARY, 0, "Then the candidate answers 50 % of the reviews."),
        (CANARY, 1, "Then it is ready: it may be promoted."),
        (READY, 1, "Promote the candidate, then end the rollout. Nothing happens by itself."),
    ],
)
def test_what_follows_each_step(state: str, step: int, following: str) -> None:
    shown = rollout_shown([replace(RECORD, state=state, step=step)])
    assert following in shown.following
    assert [stage.words for stage in shown.stages if stage.standing == "now"] == [
        "ready" if state == READY else ("canary at 1 %", "canary at 50 %")[step]
    ]


@pytest.mark.parametrize("state", [DONE, ROLLED_BACK])
def test_one_that_ended_says_that_nothing_goes_on(state: str) -> None:
    shown = rollout_shown([replace(RECORD, state=state, share=0.0)])
    assert (shown.stages, shown.ends_at_ms) == ((), None)
    assert shown.following[0].startswith("Nothing goes on")
    assert ("begin another", "reviewmesh rollout start --task topic") in shown.commands


def test_what_is_shown_against_it_is_said() -> None:
    for low, high, told in ((0.3, 0.4, "shown to be above"), (0.1, 0.2, "shown to be below")):
        look = Look(1, SHADOW, "disagreement", "all", 900, (low + high) / 2, low, high)
        [evidence] = rollout_shown([replace(RECORD, looks=(look,))]).evidence
        assert evidence.told == f"{told} 0.25"
        assert 0 <= evidence.limit_at <= 100


def test_the_history_holds_every_epoch_newest_first(tmp_path: Path) -> None:
    later = replace(RECORD, epoch=5, state=ROLLED_BACK, share=0.0, reason="it fails too often")
    said = text(tmp_path, RECORD, later)
    assert said.index("5 2025-10-09") < said.index("4 2025-10-09")
    assert "topic: rolled back" in said and "it fails too often" in said


def test_bounds_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert "Its bounds cannot be read:" in text(tmp_path, replace(RECORD, bounds='{"pairs": 1}'))


def test_tasks_without_one_say_how_to_begin(tmp_path: Path) -> None:
    said = text(tmp_path, RECORD)
    assert "reviewmesh rollout start --task sentiment" in said
    assert "sentiment" not in text(tmp_path / "one", RECORD, query="?task=topic")


def test_an_unknown_task_is_refused_in_words(tmp_path: Path) -> None:
    assert "Expected one of ner, topic, sentiment, got mood." in text(
        tmp_path, RECORD, query="?task=mood"
    )


def test_what_a_record_says_is_text(tmp_path: Path) -> None:
    hostile = replace(RECORD, reason=HOSTILE, model=HOSTILE, verdict=HOSTILE, rollout=HOSTILE)
    client = page(tmp_path, rollouts=kept({"topic": [hostile]}))
    assert HOSTILE not in client.get("/rollouts").text


def test_a_mesh_that_is_away_is_named(tmp_path: Path) -> None:
    answer = page(tmp_path).get("/rollouts")
    assert answer.status_code == 200
    assert "did not answer" in text_of(answer.text)
    assert "No rollout was begun" not in text_of(answer.text)
