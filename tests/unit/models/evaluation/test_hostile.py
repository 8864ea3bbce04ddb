"""Hostile texts: made of every kind, and counted as flips against what is said of the review."""

from __future__ import annotations

from reviewmesh_models.evaluation.attack import Attack, families_of, flips_of
from reviewmesh_models.evaluation.hostile import (
    HUGE_CODE_POINTS,
    NOTHING_ADDED,
    HostileText,
    hostile_texts,
    positions,
)
from reviewmesh_worker.engines.interface import (
    ItemFailure,
    SentimentOutput,
    TaskOutput,
    Topic,
    TopicOutput,
)
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()
REVIEWS = ("Great app, {curly} and all.", "Slow.")
GOOD = SentimentOutput("positive", {"positive": 1.0})
BAD = SentimentOutput("negative", {"negative": 1.0})
FAILED = ItemFailure("INTERNAL", "no", retryable=False)


def _topics(*ids: str) -> TopicOutput:
    return TopicOutput(tuple(Topic(one, 0.9, "positive") for one in ids))


ALL_TOPICS = _topics(*TASKS[TOPIC].label_ids)


def test_reviews_are_spread_evenly() -> None:
    assert positions(3) == [0, 1, 2]
    chosen = positions(1000)
    assert len(chosen) == len(set(chosen)) == 200
    assert chosen[-1] >= 990


def test_each_text_holds_the_review_and_asks_for_what_is_not_said_of_it() -> None:
    said: dict[str, list[TaskOutput | ItemFailure]] = {
        SENTIMENT: [GOOD, FAILED],
        TOPIC: [_topics("staff-support.phone"), ALL_TOPICS],
    }
    texts = hostile_texts(REVIEWS, said, TASKS)
    asking = [text for text in texts if text.label or text.topic]
    assert len(asking) > 20
    for text in asking:
        assert REVIEWS[text.review] in text.text
        assert text.label is None or text.label in text.text
        assert text.topic is None or text.topic in text.text
        if text.review == 0:
            assert text.label != "positive" and text.topic != "staff-support.phone"
    for text in texts:
        if text.family == NOTHING_ADDED:
            assert text.text.split() == REVIEWS[text.review].split()
        elif text.family == "huge":
            assert HUGE_CODE_POINTS - 200 < len(text.text) <= HUGE_CODE_POINTS
        text.text.encode("utf-8")


def test_enough_reviews_use_every_template() -> None:
    texts = hostile_texts(["one review"] * 20, {}, TASKS)
    used = {(text.family, text.text.replace(text.label or "", "")) for text in texts}
    assert len(used) > 60


def test_flips_are_counted_against_the_review_alone() -> None:
    texts = [
        HostileText(NOTHING_ADDED, 0, "n"),
        HostileText("asks", 0, "a", label="negative", topic="t"),
        HostileText("asks", 1, "b", label="positive", topic="t"),
        HostileText("asks", 1, "c", label="neutral"),
        HostileText("huge", 1, "d"),
    ]
    attack = Attack(
        reviews=2,
        texts=texts,
        alone={SENTIMENT: [GOOD, BAD], TOPIC: [_topics("s"), _topics()]},
        attacked={
            SENTIMENT: [BAD, BAD, BAD, GOOD, FAILED],
            TOPIC: [_topics("s"), _topics("s", "t"), _topics(), _topics(), _topics()],
        },
    )
    # Two flips of three answers: a failure is none, and what nothing was added to does not count.
    assert flips_of(attack, SENTIMENT).value == 2 / 3
    assert flips_of(attack, TOPIC).value == 1 / 4
    families = families_of(attack)
    assert list(families) == [NOTHING_ADDED, "asks", "huge"]
    assert families["asks"].flips[SENTIMENT].value == 2 / 3
    assert families["asks"].reached[SENTIMENT].value == 1 / 3
    assert families["asks"].reached[TOPIC].value == 1 / 2
    assert (families["huge"].texts, families["huge"].failed) == (1, 1)
    assert families["huge"].reached == {}
    assert families[NOTHING_ADDED].flips[SENTIMENT].value == 1
