"""Commands for campaigns: for which states they are refused, with no mesh to read them from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.query import steering
from reviewmesh.query.campaigns import Campaign
from reviewmesh.query.errors import NotCarriedOut
from reviewmesh.query.steering import CANCEL, PAUSE, RESUME, steer

NAME = "topic-1"
NO_MESH: Any = None


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Campaign]:
    """What the topic of campaigns holds, oldest first."""
    found = [Campaign(NAME, "topic", "model_version < 3", RUNNING, 9, {}, 1)]

    def change(connection: Any, campaign: Campaign, state: str) -> Campaign:
        found.append(replace(campaign, state=state))
        return found[-1]

    monkeypatch.setattr(steering, "campaign_named", lambda connection, name: found[-1])
    monkeypatch.setattr(steering, "unfinished_of_others", lambda connection, task: None)
    monkeypatch.setattr(steering, "change", change)
    return found


@pytest.mark.parametrize(
    ("command", "before", "after"),
    [(PAUSE, RUNNING, PAUSED), (RESUME, PAUSED, RUNNING), (CANCEL, PAUSED, CANCELLED)],
)
def test_a_second_press_changes_nothing_and_says_why(
    written: list[Campaign], command: str, before: str, after: str
) -> None:
    written[0] = replace(written[0], state=before)
    assert steer(NO_MESH, NAME, command, seen=before).state == after
    with pytest.raises(NotCarriedOut, match=f"{NAME} is {after.lower()}"):
        steer(NO_MESH, NAME, command, seen=before)
    assert len(written) == 2


def test_without_a_state_that_was_seen_any_will_do(written: list[Campaign]) -> None:
    steer(NO_MESH, NAME, PAUSE)
    assert steer(NO_MESH, NAME, PAUSE).state == PAUSED


@pytest.mark.parametrize("command", [PAUSE, RESUME, CANCEL])
def test_one_that_is_cancelled_stays_so(written: list[Campaign], command: str) -> None:
    written[0] = replace(written[0], state=CANCELLED)
    with pytest.raises(NotCarriedOut, match="is cancelled"):
        steer(NO_MESH, NAME, command)
    assert len(written) == 1


def test_it_does_not_go_on_beside_one_of_another_task(
    written: list[Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(written[0], id="ner-2", task="ner")
    monkeypatch.setattr(steering, "unfinished_of_others", lambda connection, task: other)
    steer(NO_MESH, NAME, PAUSE)
    with pytest.raises(NotCarriedOut, match="campaign ner-2 is not over"):
        steer(NO_MESH, NAME, RESUME)
    assert written[-1].state == PAUSED


def test_a_condition_that_cannot_be_read_leaves_it_as_it_is(written: list[Campaign]) -> None:
    written[0] = replace(written[0], state=PAUSED, where="mood < 3")
    with pytest.raises(NotCarriedOut, match="the condition of topic-1"):
        steer(NO_MESH, NAME, RESUME)
    assert len(written) == 1
