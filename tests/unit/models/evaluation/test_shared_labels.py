"""Packages for different versions of a task are held against each other on what both know."""

from __future__ import annotations

from reviewmesh_models.evaluation.measures import measures_of
from reviewmesh_models.evaluation.rows import DevRows
from reviewmesh_models.evaluation.shared_labels import measures_on
from reviewmesh_worker.engines.interface import SentimentOutput, Topic, TopicOutput
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()
OLD, OTHER, NEW = (label.id for label in TASKS["topic"].labels[:3])
ROWS = DevRows(
    reviews=[
        {"text": "a", "sentiment": "positive", "topics": []},
        {
            "text": "b",
            "sentiment": "mixed",
            "topics": [
                {"topic": OLD, "polarity": "positive"},
                {"topic": NEW, "polarity": "negative"},
            ],
        },
    ],
    entities=[],
    digests={},
)


def said(*topics: str) -> TopicOutput:
    return TopicOutput(tuple(Topic(topic, 0.9, "positive") for topic in topics))


def test_a_topic_that_one_does_not_know_counts_for_neither() -> None:
    task = TASKS["topic"]
    knows_it = [said(), said(OLD, NEW)]
    does_not = [said(), said(OLD)]
    alone = [
        measures_of(ROWS, {"topic": given}, TASKS)["topic.micro_f1"].value
        for given in (knows_it, does_not)
    ]
    assert alone[0] == 1 and alone[1] < 1
    for given in (knows_it, does_not):
        assert measures_on({OLD, OTHER}, task, ROWS, given)["topic.micro_f1"].value == 1
    worse = measures_on({OLD, OTHER}, task, ROWS, [said(), said(NEW)])
    assert worse["topic.micro_f1"].value == 0


def test_with_the_same_labels_nothing_is_left_out() -> None:
    task = TASKS["topic"]
    given = [said(NEW), said(OLD)]
    whole = measures_of(ROWS, {"topic": given}, TASKS)
    same = measures_on(set(task.label_ids), task, ROWS, given)
    assert {name: one.value for name, one in whole.items()} == {
        name: one.value for name, one in same.items()
    }


def test_a_review_of_a_sentiment_that_one_does_not_know_is_left_out() -> None:
    given = [SentimentOutput(label, {label: 1.0}) for label in ("positive", "negative")]
    known = {"positive", "negative"}
    measured = measures_on(known, TASKS["sentiment"], ROWS, given)["sentiment.accuracy"]
    assert measured.value == 1 and len(measured.parts) == 1
