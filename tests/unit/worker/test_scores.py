"""Scores are counted as the model card says."""

from __future__ import annotations

import pytest

from reviewmesh_worker.engines.interface import (
    Entity,
    NerOutput,
    SentimentOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.evaluation.run import language_rows
from reviewmesh_worker.evaluation.scores import (
    Counts,
    calibration_error,
    entity_counts,
    label_counts,
    macro_f1,
    topic_counts,
    total,
)
from reviewmesh_worker.tasks.definition import load_tasks
from reviewmesh_worker.tasks.labels import head_labels


def _entity(start: int, end: int, label: str) -> Entity:
    return Entity(start, end, "x" * (end - start), label, 0.9)


def test_f1_of_counts() -> None:
    counts = Counts(right=6, wrong=2, missed=4)
    assert counts.precision == 0.75
    assert counts.recall == 0.6
    assert counts.f1 == pytest.approx(2 / 3)


def test_macro_f1_counts_labels_alike_and_a_label_never_said_as_zero() -> None:
    gold = ["a"] * 9 + ["b"]
    assert macro_f1(label_counts(gold, ["a"] * 10, ["a", "b"])) == pytest.approx(18 / 19 / 2)


def test_spans_must_match_exactly() -> None:
    row = {
        "source": "s",
        "labels_annotated": ["person"],
        "entities": [{"start": 0, "end": 4, "label": "person"}],
    }
    outputs = [NerOutput((_entity(0, 5, "person"),))]
    assert total(entity_counts([row], outputs).values()) == Counts(0, 1, 1)


def test_labels_that_a_source_never_annotates_are_left_out() -> None:
    row = {"source": "s", "labels_annotated": ["person"], "entities": []}
    outputs = [NerOutput((_entity(0, 4, "product"), _entity(5, 8, "person")))]
    assert total(entity_counts([row], outputs).values()) == Counts(0, 1, 0)


def test_topics_are_counted_as_sets() -> None:
    gold = {"topics": [{"topic": "a", "polarity": "x"}, {"topic": "a", "polarity": "y"}]}
    said = TopicOutput((Topic("a", 0.9, "x"), Topic("b", 0.6, "x")))
    assert topic_counts([gold], [said]) == {"a": Counts(right=1), "b": Counts(wrong=1)}


def test_calibration_error_is_the_gap_between_stated_and_right() -> None:
    sure = SentimentOutput("positive", {"positive": 0.95})
    assert calibration_error(["positive"] * 4, [sure] * 4) == pytest.approx(0.05)
    assert calibration_error(["negative"] * 4, [sure] * 4) == pytest.approx(0.95)


def test_the_rows_in_other_languages_are_well_formed() -> None:
    rows = language_rows()
    assert {row["sentiment"] for row in rows} <= set(head_labels(load_tasks()).sentiments)
    assert len({row["text"] for row in rows}) == len(rows) >= 30
