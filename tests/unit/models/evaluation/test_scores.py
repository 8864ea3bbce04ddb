"""Scores are counted as the model card says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_models.evaluation.measures import bins_of
from reviewmesh_models.evaluation.scores import (
    AnswerCounts,
    calibration_error,
    counts_of,
    entity_parts,
    hits,
    label_parts,
    macro_f1,
    micro_f1,
    polar_topic_parts,
    polarity_parts,
    share,
    stated_entities,
    stated_sentiments,
    topic_parts,
)
from reviewmesh_worker.engines.interface import (
    Entity,
    NerOutput,
    SentimentOutput,
    Topic,
    TopicOutput,
)

LABELS = ("a", "b", "c")


def _entity(start: int, end: int, label: str) -> Entity:
    return Entity(start, end, "x" * (end - start), label, 0.9)


def _names(labels: list[str], *spans: tuple[int, int, str]) -> dict[str, object]:
    return {
        "source": "s",
        "labels_annotated": labels,
        "entities": [{"start": start, "end": end, "label": label} for start, end, label in spans],
    }


def test_f1_of_counts() -> None:
    counts = AnswerCounts(right=6, wrong=2, missed=4)
    assert counts.precision == 0.75
    assert counts.recall == 0.6
    assert micro_f1(np.array([[[6.0, 2, 4]]])).value == pytest.approx(2 / 3)


def test_macro_f1_counts_labels_alike_and_a_label_never_said_as_zero() -> None:
    gold = ["a"] * 9 + ["b"]
    assert macro_f1(label_parts(gold, ["a"] * 10, ["a", "b"])).value == pytest.approx(18 / 19 / 2)


def test_no_answer_is_a_label_missed_and_none_said() -> None:
    (counts,) = counts_of(label_parts(["a", "a"], ["a", ""], ["a"]))
    assert counts == AnswerCounts(right=1, wrong=0, missed=1)
    assert share(hits(["a", "a"], ["a", ""])).value == 0.5


def test_spans_must_match_exactly() -> None:
    row = _names(["person"], (0, 4, "person"))
    outputs = [NerOutput((_entity(0, 5, "person"),))]
    assert counts_of(entity_parts([row], outputs, ["person"])) == [AnswerCounts(0, 1, 1)]


def test_labels_that_a_source_never_annotates_are_left_out() -> None:
    row = _names(["person"])
    outputs = [NerOutput((_entity(0, 4, "product"), _entity(5, 8, "person")))]
    parts = entity_parts([row], outputs, ["person", "product"])
    assert counts_of(parts) == [AnswerCounts(0, 1, 0), AnswerCounts()]
    assert stated_entities([row], outputs) == [[(0.9, False)]]


def test_topics_are_counted_as_sets_and_polarities_where_the_topic_is_found() -> None:
    row = {
        "topics": [{"topic": "a", "polarity": "positive"}, {"topic": "c", "polarity": "neutral"}]
    }
    said = TopicOutput((Topic("a", 0.9, "negative"), Topic("b", 0.6, "positive")))
    counts = counts_of(topic_parts([row], [said], LABELS))
    assert counts == [AnswerCounts(right=1), AnswerCounts(wrong=1), AnswerCounts(missed=1)]
    assert counts_of(polar_topic_parts([row], [said])) == [AnswerCounts(0, 2, 2)]
    right, polarities = polarity_parts([row], [said])
    assert right.tolist() == [[0, 1]]
    assert counts_of(polarities) == [AnswerCounts(missed=1), AnswerCounts(wrong=1), AnswerCounts()]


def test_calibration_error_is_the_gap_between_stated_and_right() -> None:
    sure = [[(0.95, True)]] * 4
    assert calibration_error(sure).value == pytest.approx(0.05)
    assert calibration_error([[(0.95, False)]] * 4).value == pytest.approx(0.95)
    # A row that states nothing is not counted, one that states two things twice.
    assert calibration_error([[], [(0.75, True), (0.15, True)]]).value == pytest.approx(0.55)


def test_who_said_nothing_states_nothing() -> None:
    sure = SentimentOutput("a", {"a": 0.8, "b": 0.2})
    assert stated_sentiments(["a", "b"], [sure, None]) == [[(0.8, True)], []]


@given(
    st.lists(
        st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, ""))), min_size=1, max_size=40
    )
)
def test_f1_of_parts_is_that_of_the_sets(pairs: list[tuple[str, str]]) -> None:
    gold, said = [one for one, _ in pairs], [other for _, other in pairs]
    parts = label_parts(gold, said, LABELS)
    right = sum(a == b for a, b in pairs)
    answers = sum(b != "" for _, b in pairs)
    assert micro_f1(parts).value == pytest.approx(2 * right / (len(pairs) + answers))
    own = []
    for label in LABELS:
        both = sum(a == b == label for a, b in pairs)
        either = gold.count(label) + said.count(label)
        own.append(2 * both / either if either else 0.0)
    assert macro_f1(parts).value == pytest.approx(sum(own) / len(LABELS))


@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=3), max_size=30))
def test_calibration_error_lies_between_none_and_all(
    stated: list[list[tuple[float, bool]]],
) -> None:
    error = calibration_error(stated).value
    assert -1e-9 <= error <= 1 + 1e-9
    bins = bins_of(stated)
    answers = sum(len(row) for row in stated)
    assert sum(one.answers for one in bins) == answers
    weighted = sum(abs(one.stated - one.right) * one.answers for one in bins) / max(answers, 1)
    assert error == pytest.approx(weighted)
