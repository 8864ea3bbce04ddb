"""Units, consensus and what is written, on answers that are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reviewmesh_models.labelling.agreement import (
    EXACT,
    OVERLAPPING,
    WHOLE_TASK,
    Agreement,
    agreement_of,
    write_agreement,
)
from reviewmesh_models.labelling.decisions import DecidedUnit, Decision
from reviewmesh_models.labelling.page import page_of
from reviewmesh_models.labelling.results import Labelled, disagreements, labelled, write_results
from reviewmesh_models.labelling.reviews import Review, ReviewsError, read_gold, read_reviews
from reviewmesh_models.labelling.store import Store
from reviewmesh_models.training.rows import read_data
from tests import simulated_teachers
from tests.unit.models.labelling.made import TASKS, make, moods

ROOT = Path(__file__).parents[4]
ALL_LABELS = list(TASKS["ner"].label_ids)


def names(*spans: tuple[int, int, str], text: str) -> dict[str, Any]:
    return {
        "entities": [
            {"start": start, "end": end, "label": label, "text": text[start:end]}
            for start, end, label in spans
        ]
    }


def topics(**polarities: str) -> dict[str, Any]:
    ids = {label.split(".")[1].replace("-", "_"): label for label in TASKS["topic"].label_ids}
    return {
        "topics": [
            {"topic": ids[name], "polarity": polarity} for name, polarity in polarities.items()
        ]
    }


def read(folder: Path) -> Labelled:
    with Store(folder) as store:
        return labelled(store, TASKS, {})


def agreement(found: Labelled, judges: Any = None) -> Agreement:
    return agreement_of(found, (30, 900, 0.25), judges or {})


def three(folder: Path, gold: bool = True) -> Labelled:
    """Ten reviews, three teachers; the third is wrong about every other one."""
    reviews = [
        Review(f"review {at} of Anna Meier", {"sentiment": "positive"} if gold and at > 7 else None)
        for at in range(10)
    ]
    text = "review 0 of Anna Meier"
    right, short, none = (
        names((12, 22, "person"), text=text),
        names((12, 16, "person"), text=text),
        names(text=text),
    )
    make(
        folder,
        reviews,
        {
            "sentiment": {
                "first": moods(*["positive"] * 10),
                "second": moods(*["positive"] * 10),
                "third": moods(*["positive", "negative"] * 5),
            },
            "topic": {
                "first": [topics(speed="positive")] * 10,
                "second": [topics(speed="positive", email="negative")] * 5
                + [topics(speed="positive")] * 5,
                "third": [topics(speed="positive")] * 9 + [None],
            },
            "ner": {
                "first": [right] * 10,
                "second": [right] * 9 + [none],
                "third": [short, *[right] * 9],
            },
        },
    )
    return read(folder)


def test_a_teacher_that_is_wrong_alone_is_outvoted_and_rows_are_written(tmp_path: Path) -> None:
    found = three(tmp_path)
    write_results(found, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "reviews_train.jsonl").open()]
    assert len(rows) == 8
    assert all(row["sentiment"] == "positive" for row in rows)
    speed = {"topic": "logistics-rides.speed", "polarity": "positive"}
    assert all(speed in row["topics"] for row in rows)
    entities = [json.loads(line) for line in (tmp_path / "ner_train.jsonl").open()]
    assert entities[1]["entities"][0]["text"] == "Anna Meier"
    assert entities[1]["labels_annotated"] == ALL_LABELS


def test_training_reads_what_was_written(tmp_path: Path) -> None:
    texts = [Review(f"review {at}") for at in range(60)]
    make(
        tmp_path,
        texts,
        {
            "sentiment": {name: moods(*["positive"] * 60) for name in ("first", "second")},
            "topic": {name: [topics(email="neutral")] * 60 for name in ("first", "second")},
            "ner": {name: [names(text="")] * 60 for name in ("first", "second")},
        },
    )
    assert set(write_results(read(tmp_path), tmp_path).values()) == {60, 0}
    data = read_data(tmp_path, TASKS)
    assert len(data.reviews.learn) + len(data.reviews.held_out) == 60
    assert len(data.entities.learn) + len(data.entities.held_out) == 60


def test_the_most_doubtful_disagreement_comes_first(tmp_path: Path) -> None:
    make(
        tmp_path,
        [Review(f"review {at}") for at in range(12)],
        {
            "sentiment": {
                "first": moods(*["positive"] * 10, "positive", "positive"),
                "second": moods(*["positive"] * 10, "positive", "negative"),
                "third": moods(*["positive"] * 10, "mixed", "neutral"),
            }
        },
    )
    listed = disagreements(read(tmp_path))
    assert [one["text"] for one in listed] == ["review 11", "review 10"]
    assert listed[0]["units"][0]["said"] == {
        "first": "positive",
        "second": "negative",
        "third": "neutral",
    }


def test_names_that_overlap_are_one_name(tmp_path: Path) -> None:
    text = "Anna Meier Ltd was good"
    said = [
        names((0, 10, "person"), text=text),
        names((0, 10, "person"), text=text),
        names((0, 14, "organization"), text=text),
    ]
    make(tmp_path, [Review(text)], {"ner": {str(at): [one] for at, one in enumerate(said)}})
    [labels] = read(tmp_path).tasks["ner"].labels
    assert labels is not None
    assert [one["text"] for one in labels["entities"]] == ["Anna Meier"]


def test_a_review_of_one_teacher_is_no_row(tmp_path: Path) -> None:
    make(
        tmp_path,
        [Review("a"), Review("b")],
        {"sentiment": {"first": moods("positive", "positive"), "second": moods(None, "positive")}},
    )
    assert write_results(read(tmp_path), tmp_path)["reviews_train.jsonl"] == 1


def test_agreement_of_each_task(tmp_path: Path) -> None:
    report = agreement(three(tmp_path))
    mood = report.tasks["sentiment"]
    assert mood.alpha["mixed"] is None and mood.alpha["positive"] is not None
    assert mood.reliability["first"]["positive"] > 0.9 > mood.reliability["third"]["positive"]
    [same, worse, _] = mood.pairs
    assert same.same == 1 and worse.counts[0][:2] == [5, 5]
    topic = report.tasks["topic"].alpha
    assert topic["staff-support.email"] is not None and topic["logistics-rides.speed"] is None
    assert topic[WHOLE_TASK] is not None and topic[WHOLE_TASK].value > 0.8
    ner = report.tasks["ner"]
    exact, overlapping = ner.alpha[EXACT], ner.alpha[OVERLAPPING]
    assert exact is not None and overlapping is not None
    # `Anna` alone is part of the same name and another name.
    assert exact.value < overlapping.value
    pair = next(one for one in ner.pairs if (one.one, one.other) == ("first", "third"))
    assert pair.names[OVERLAPPING].value == 1 > pair.names[EXACT].value


def test_gold_tells_the_best_teacher_and_what_a_disagreement_costs(tmp_path: Path) -> None:
    report = agreement(three(tmp_path))
    mood = report.tasks["sentiment"]
    assert mood.gold is not None and mood.gold.rows == 2
    assert mood.gold.teachers["third"].value == 0.5 and mood.gold.consensus.value == 1
    assert mood.costs.reviews == 8 and mood.costs.disputed == 4
    assert mood.costs.wrong_where_agreed == 0 and mood.costs.wrong_where_disputed == 0
    assert mood.costs.money_per_kept_row == pytest.approx(0.25 / 8)


def test_judges_are_compared_on_what_both_decided(tmp_path: Path) -> None:
    found = three(tmp_path)

    def decided(*labels: str) -> list[Decision]:
        task = TASKS["sentiment"]
        return [
            Decision(
                DecidedUnit("sentiment", task.digest, found.reviews[at].key, None), label, 2.0 + at
            )
            for at, label in enumerate(labels)
        ]

    judges = {
        "a": decided("positive", "negative", "mixed", "positive"),
        "b": decided("positive", "negative", "neutral"),
    }
    [pair] = agreement(found, judges).tasks["sentiment"].judges
    assert pair.units == 3 and pair.same == pytest.approx(2 / 3)
    assert agreement(found, judges).tasks["sentiment"].costs.seconds_a_decision == 3.0


def test_the_page_holds_no_word_of_a_stranger_as_markup(tmp_path: Path) -> None:
    text = "<script>alert(1)</script> \u202e \x1b[2J \ud83d"
    make(
        tmp_path,
        [Review(text)],
        {"sentiment": {"first": moods("positive"), "second": moods("negative")}},
    )
    report = agreement(read(tmp_path))
    page = page_of(report)
    assert "&lt;script&gt;" in page and "<script" not in page
    assert not {"\u202e", "\x1b", "\ud83d"} & set(page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    write_agreement(report, tmp_path)
    read_back = json.loads((tmp_path / "agreement.json").read_text())
    assert read_back["disagreements"][0]["text"] == text


@pytest.mark.parametrize("seed", simulated_teachers.SEEDS)
def test_the_consensus_is_better_than_the_best_of_three(seed: int) -> None:
    outcome = simulated_teachers.sentiments(seed)
    assert outcome.consensus > outcome.best


def test_two_that_copy_each_other_outvote_a_better_one() -> None:
    """What nobody can see from the answers alone: docs/labelling.md says so."""
    outcomes = [simulated_teachers.sentiments(seed, copied=1.0) for seed in range(5)]
    assert all(one.consensus < one.best for one in outcomes)


def test_records_of_the_enriched_topic_are_reviews() -> None:
    examples = json.loads(
        (ROOT / "schemas/reviewmesh_schemas/examples/enriched_review.json").read_text()
    )
    found = list(read_reviews([json.dumps(one) for one in examples], "standard input"))
    assert [review.text for review in found] == [one["text"] for one in examples]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 2: expected a line of JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"text": "  "}', "line 2: expected a review's words"),
        ('{"body": "x"}', "line 2: expected a review's words"),
    ],
)
def test_a_line_that_is_no_review_is_named(line: str, expected: str) -> None:
    with pytest.raises(ReviewsError, match=expected):
        list(read_reviews(['{"text": "a"}', line], "reviews.jsonl"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "a"}, "expected labels"),
        ({"text": "a", "sentiment": "glad"}, "got 'glad'"),
        ({"text": "a", "sentiment": ["positive"]}, "got"),
        ({"text": "a", "topics": [{"topic": "x", "polarity": "positive"}]}, "got"),
        ({"text": "a", "topics": "x"}, "got"),
        (
            {"text": "a", "entities": [{"start": 0, "end": 1, "label": "person", "text": "b"}]},
            "got",
        ),
        ({"text": "a", "entities": [{"label": "person"}]}, "KeyError"),
    ],
)
def test_gold_that_is_off_is_named(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(ReviewsError, match=expected):
        list(read_gold([json.dumps(row)], "gold.jsonl", TASKS))
