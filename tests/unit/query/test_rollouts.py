"""Answers of the judge to commands that were given at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from reviewmesh.enrich.rollouts import CANARY
from reviewmesh.judge.rollout import ABORT, ADVANCE, RolloutRecord
from reviewmesh.query import rollouts
from reviewmesh.query.errors import NotCarriedOut
from reviewmesh.query.rollouts import give

NO_MESH: Any = None


@pytest.mark.parametrize("refusal", [None, "it changed meanwhile"])
def test_a_later_answer_does_not_hide_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, refusal: str | None
) -> None:
    """Both were carried out before the first was asked for."""
    first = RolloutRecord("topic", "topic-1", 5, CANARY, last_command="first")
    second = RolloutRecord("topic", "topic-1", 5, CANARY, last_command="second", refusal=refusal)
    names = iter(["first", "second"])
    monkeypatch.setattr(rollouts, "write_command", lambda *words: next(names))
    monkeypatch.setattr(rollouts, "_records", lambda connection: iter([first, second]))
    assert give(NO_MESH, "topic", ADVANCE, 4) == first
    if refusal is None:
        assert give(NO_MESH, "topic", ABORT, 4) == second
    else:
        with pytest.raises(NotCarriedOut, match=refusal):
            give(NO_MESH, "topic", ABORT, 4)
