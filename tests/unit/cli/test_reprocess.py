"""Commands for campaigns that are given while others are under way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reviewmesh.cli import reprocess
from reviewmesh.enrich.campaigns import CANCELLED, PAUSED
from reviewmesh.query import steering
from reviewmesh.query.campaigns import Campaign

NAME = "topic-1"


@pytest.mark.parametrize("meanwhile", [CANCELLED, PAUSED])
def test_what_is_commanded_while_a_campaign_is_resumed_stays(
    monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Choosing again and sending take minutes on a large topic."""
    kept = Campaign(NAME, "topic", "model_version < 3", PAUSED, 9, {}, 1)

    def named(connection: Any, name: str) -> Campaign:
        return kept

    def change(connection: Any, campaign: Campaign, state: str) -> Campaign:
        nonlocal kept
        kept = replace(campaign, state=state)
        return kept

    def send_missing(connection: Any, campaign: Campaign, matches: Any) -> int:
        change(connection, campaign, meanwhile)
        return 3

    monkeypatch.setattr(reprocess, "connect", lambda: None)
    monkeypatch.setattr(steering, "campaign_named", named)
    monkeypatch.setattr(steering, "unfinished_of_others", lambda connection, task: None)
    monkeypatch.setattr(steering, "change", change)
    monkeypatch.setattr(steering, "send_missing", send_missing)
    reprocess.resume(NAME)
    assert kept.state == meanwhile
