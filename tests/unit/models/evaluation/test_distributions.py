"""How often a package says what: the form that its report has and a worker reads."""

from __future__ import annotations

import pytest

from reviewmesh_models.evaluation import distributions
from reviewmesh_models.evaluation.distributions import distributions_of
from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_worker.engines.interface import ItemFailure, SentimentOutput, TopicOutput


def test_values_are_counted_by_task_and_failures_are_not() -> None:
    outcomes: dict[str, list[Outcome]] = {
        "sentiment": [
            SentimentOutput("positive", {"positive": 0.9}),
            ItemFailure("X", "x", retryable=False),
        ],
        "topic": [TopicOutput(()), TopicOutput(())],
    }
    found = distributions_of(["Das Zimmer war sauber und das Personal sehr nett.", " "], outcomes)
    assert found["sentiment"]["label"] == {"positive": 1}
    assert found["sentiment"]["score"] == {"0.9": 1}
    assert found["topic"]["label"] == {"none": 2}
    assert found["topic"]["language"] == {"de": 1, "other": 1}


def test_rare_languages_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "language_of", lambda text: text)
    texts = [f"l{number}" for number in range(30) for _ in range(30 - number)]
    found = distributions.languages_of(texts)
    assert sum(found.values()) == len(texts)
    frequent = {f"l{number}" for number in range(distributions.MOST_LANGUAGES)}
    assert set(found) == frequent | {"other"}
