"""An enriched record always fits, whatever the answers measure."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh.join.enriched import build, fit, merge
from reviewmesh_schemas.names import TASKS
from tests.unit.join.test_join import accepted, result

LIMIT = 20_000


def encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def enriched(**answers: Any) -> dict[str, Any]:
    review = accepted("r", "text")
    results = {task: {**result(review, 0), **answers} for task in TASKS}
    return build(review, 0, 0, results, 1, 0)


def entities(count: int) -> list[dict[str, Any]]:
    return [{"start": n, "text": "x" * 20, "score": (n * 7 % 100) / 100} for n in range(count)]


def topics(count: int) -> list[dict[str, Any]]:
    return [{"id": "t" * 20, "score": 1 / (n + 1)} for n in range(count)]


def test_what_scores_lowest_goes_first_and_the_rest_keeps_its_order() -> None:
    record = enriched(entities=entities(1_000), topics=topics(3))
    assert len(fit(record, LIMIT, encode)) <= LIMIT
    starts = [entity["start"] for entity in record["entities"]]
    assert starts == sorted(starts)
    assert min(entity["score"] for entity in record["entities"]) >= 0.5
    assert len(record["topics"]) == 3
    assert record["complete"]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2_000),
    st.integers(0, 2_000),
    st.integers(0, 50_000),
    st.integers(0, 50_000),
)
def test_it_fits_whatever_the_answers_are(
    spans: int, themes: int, error_length: int, labels: int
) -> None:
    record = enriched(
        entities=entities(spans),
        topics=topics(themes),
        error="e" * error_length,
        sentiment={"label": "l" * labels, "scores": {}},
    )
    assert len(fit(record, LIMIT, encode)) <= LIMIT


def test_answers_that_cannot_be_cut_leave_the_review_incomplete() -> None:
    record = enriched(sentiment={"label": "l" * 50_000, "scores": {}})
    assert len(fit(record, LIMIT, encode)) <= LIMIT
    assert not record["complete"]
    assert {outcome["status"] for outcome in record["tasks"].values()} == {"FAILED"}
    assert record["sentiment"] is record["sentiment_label"] is None


@given(st.permutations(TASKS), st.sets(st.sampled_from(TASKS)))
def test_flat_columns_say_what_stands_deeper_in_the_record(
    order: list[str], known: set[str]
) -> None:
    """In whatever order the answers come; a label without a probability has none."""
    review = accepted("r", "text")
    record = build(review, 0, 0, {}, 1, 0)
    for revision, task in enumerate(order, 2):
        lineage = {"language": "de", "language_measured": task in known}
        answer = result(review, 0) | {
            "lineage": lineage,
            "sentiment": {"label": "mixed", "scores": {"mixed": 0.7}},
        }
        record = merge(record, {task: answer}, revision, 0)
        answered = set(order[: revision - 1])
        is_rated = "sentiment" in answered
        assert (record["sentiment_label"], record["sentiment_score"]) == (
            ("mixed", 0.7) if is_rated else (None, None)
        )
        assert record["language_detected"] == "de"
        assert record["language_measured"] == (answered <= known)
    assert enriched()["sentiment_score"] is None
    assert enriched()["language_measured"] is None
