"""What a model answers is counted by value, beside what it answered on the gate's set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import REGISTRY

from reviewmesh_worker.engines.interface import (
    Entity,
    ItemFailure,
    NerOutput,
    SentimentOutput,
    TaskDescription,
    TaskOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.engines.values import values_of
from reviewmesh_worker.serving.values import LANGUAGE_OF_EVERY, AnswerValues

LABELS = ("positive", "negative")
ABOUT = TaskDescription("sentiment", LABELS, "scripted", "values-test", "7", "sha256:0")
REFERENCE = {
    "label": {"positive": 60, "negative": 30, "gone": 10},
    "score": {"0.9": 4},
    "language": {"en": 9, "da": 1},
}
ANSWER = SentimentOutput("positive", {"positive": 0.97, "negative": 0.03})
ENGLISH = "The staff at the desk were very kind to us and the room was clean."


def samples(name: str) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["of"], sample.labels.get("value", "")): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and sample.labels.get("model") == "values-test"
    }


def counted() -> dict[tuple[str, str], float]:
    found = samples("reviewmesh_worker_answer_values_total")
    return {key: value for key, value in found.items() if value}


@pytest.fixture
def values() -> Iterator[AnswerValues]:
    values = AnswerValues(ABOUT, REFERENCE)
    values.show()
    yield values
    values.hide()


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (ANSWER, [("label", "positive"), ("score", "0.9")]),
        (SentimentOutput("mixed", {"mixed": 1.0}), [("label", "mixed"), ("score", "0.9")]),
        (SentimentOutput("mixed", {}), [("label", "mixed")]),
        (SentimentOutput("mixed", {"mixed": math.nan}), [("label", "mixed")]),
        (TopicOutput(()), [("label", "none")]),
        (
            TopicOutput((Topic("a", 0.35, "positive"), Topic("b", 0.0, "negative"))),
            [("label", "a"), ("score", "0.3"), ("label", "b"), ("score", "0.0")],
        ),
        (
            NerOutput((Entity(0, 4, "Anna", "person", 0.1),)),
            [("label", "person"), ("score", "0.1")],
        ),
        (ItemFailure("X", "x", retryable=False), []),
    ],
)
def test_values_of_an_answer(
    outcome: TaskOutput | ItemFailure, said: list[tuple[str, str]]
) -> None:
    assert list(values_of(outcome)) == said


def test_every_value_is_there_from_zero_and_shares_add_up(values: AnswerValues) -> None:
    counters = samples("reviewmesh_worker_answer_values_total")
    shares = samples("reviewmesh_worker_reference_share")
    assert counters.keys() == shares.keys()
    assert set(counters.values()) == {0}
    for of in REFERENCE:
        assert sum(share for (kind, _), share in shares.items() if kind == of) == pytest.approx(1)
    # A label that the task does not have any more.
    assert shares["label", "other"] == pytest.approx(0.1)
    assert samples("reviewmesh_worker_reference_values") == {
        ("label", ""): 100,
        ("score", ""): 4,
        ("language", ""): 10,
    }


def test_answers_are_counted_and_unknown_values_are_one(values: AnswerValues) -> None:
    values.count(
        [
            (ANSWER, ENGLISH, ""),
            (SentimentOutput("new", {"new": 0.5}), ENGLISH, ""),
            (ItemFailure("X", "x", retryable=True), ENGLISH, ""),
            (ANSWER, ENGLISH, ""),
        ]
    )
    assert counted() == {
        ("label", "positive"): 2,
        ("label", "other"): 1,
        ("score", "0.9"): 2,
        ("score", "0.5"): 1,
    }


def test_one_text_in_so_many_tells_its_language(values: AnswerValues) -> None:
    for _ in range(LANGUAGE_OF_EVERY):
        values.count([(ANSWER, ENGLISH, "")])
    assert counted()["language", "en"] == 1
    for _ in range(LANGUAGE_OF_EVERY):
        values.count([(ANSWER, ENGLISH, "sv-SE")])
    assert counted()["language", "other"] == 1


@pytest.mark.parametrize("reference", [{}, {"label": {}}, {"label": {"positive": 0}}])
def test_without_a_reference_answers_are_counted_all_the_same(
    reference: Mapping[str, Mapping[str, int]],
) -> None:
    values = AnswerValues(ABOUT, reference)
    values.show()
    for _ in range(LANGUAGE_OF_EVERY):
        values.count([(ANSWER, ENGLISH, "")])
    assert counted() == {("label", "positive"): 20, ("score", "0.9"): 20}
    assert samples("reviewmesh_worker_reference_share") == {}
    values.hide()


def test_what_is_out_of_service_is_gone_and_counts_no_more() -> None:
    values = AnswerValues(ABOUT, REFERENCE)
    values.show()
    values.hide()
    values.count([(ANSWER, ENGLISH, "")])
    for name in ("answer_values_total", "reference_share", "reference_values"):
        assert samples(f"reviewmesh_worker_{name}") == {}
