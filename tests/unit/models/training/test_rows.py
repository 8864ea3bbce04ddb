"""The rows of a training: checked, and kept apart from those that scores are made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reviewmesh_models.training.rows import (
    DataError,
    check_labels,
    is_held_out,
    normalised,
    read_data,
    split_held_out,
)
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()
REVIEWS = {name: TASKS[name] for name in (SENTIMENT, TOPIC)}


def _review(text: str) -> dict[str, Any]:
    topic = {"topic": "online-experience.app-website", "polarity": "positive"}
    return {"text": text, "sentiment": "positive", "topics": [topic]}


def _name(text: str) -> dict[str, Any]:
    entity = {"start": 0, "end": 4, "label": "person", "text": text[:4]}
    return {"text": text, "entities": [entity], "labels_annotated": ["person"], "source": "made"}


def _write(folder: Path, file: str, rows: Sequence[Any]) -> None:
    lines = (json.dumps(row) for row in rows)
    (folder / f"{file}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_a_text_of_the_dev_file_is_never_learned(tmp_path: Path) -> None:
    texts = [f"Review number {number} was good." for number in range(200)]
    _write(tmp_path, "reviews_train", [_review(text) for text in texts])
    # The same but for letter case, white space and a letter in another width.
    leaked = {f"  REVIEW number\t{number}\nwas ｇood." for number in range(50)}
    _write(tmp_path, "reviews_dev", [_review(text) for text in leaked])
    found = read_data(tmp_path, REVIEWS).reviews
    assert found.in_dev == 50
    assert len(found.learn) + len(found.held_out) == 150
    scored = {normalised(text) for text in leaked}
    assert not scored & {normalised(row["text"]) for row in (*found.learn, *found.held_out)}


def test_without_dev_files_all_rows_are_learned_or_held_out(tmp_path: Path) -> None:
    _write(tmp_path, "reviews_train", [_review(f"Review {n}") for n in range(200)])
    found = read_data(tmp_path, REVIEWS)
    assert len(found.reviews.learn) + len(found.reviews.held_out) == 200
    assert found.reviews.in_dev == 0
    assert found.reviews_file is not None and found.reviews_file.rows == 200


def test_a_task_reads_only_its_own_file(tmp_path: Path) -> None:
    _write(tmp_path, "ner_train", [_name(f"Anna {n}") for n in range(200)])
    found = read_data(tmp_path, {NER: TASKS[NER]})
    assert len(found.entities.learn) > 150
    assert found.reviews_file is None
    with pytest.raises(FileNotFoundError, match="reviews_train"):
        read_data(tmp_path, TASKS)


@pytest.mark.parametrize(
    ("file", "row", "said"),
    [
        ("reviews", {**_review("Fine"), "sentiment": "meh"}, "found meh"),
        ("reviews", {**_review("Fine"), "topics": [{"topic": "x", "polarity": "positive"}]}, "'x'"),
        ("reviews", {"text": "Fine", "sentiment": "positive"}, "missing 'topics'"),
        ("reviews", _review(" "), "found no text"),
        ("ner", {**_name("Anna"), "entities": [{}]}, "missing"),
        ("ner", {**_name("Anna"), "text": "Paul"}, "'text': 'Anna'"),
    ],
)
def test_a_row_that_is_none_is_named(
    tmp_path: Path, file: str, row: dict[str, Any], said: str
) -> None:
    _write(tmp_path, "reviews_train", [_review(f"Review {n}") for n in range(200)])
    _write(tmp_path, "ner_train", [_name(f"Anna {n}") for n in range(200)])
    good = [json.loads(line) for line in (tmp_path / f"{file}_train.jsonl").open()]
    _write(tmp_path, f"{file}_train", [*good[:6], row, *good[6:]])
    with pytest.raises(DataError, match=f"{file}_train.jsonl, row 7") as caught:
        read_data(tmp_path, TASKS)
    assert said in str(caught.value)


def test_a_label_without_a_row_to_learn_from_is_named(tmp_path: Path) -> None:
    texts = [f"Review {n}" for n in range(200)]
    rows = [_review(text) for text in texts]
    labels = TASKS[TOPIC].label_ids
    for at, topic in enumerate(labels):
        rows[at]["topics"] = [{"topic": topic, "polarity": "positive"}]
    for at, mood in enumerate(TASKS[SENTIMENT].label_ids):
        rows[20 + at]["sentiment"] = mood
    learned = [text for text in texts if not is_held_out(text)]
    for row, text in zip(rows, [*learned, *(set(texts) - set(learned))], strict=True):
        row["text"] = text
    _write(tmp_path, "reviews_train", rows)
    check_labels(read_data(tmp_path, REVIEWS), REVIEWS)

    def refusal() -> str:
        _write(tmp_path, "reviews_train", rows)
        with pytest.raises(DataError) as caught:
            check_labels(read_data(tmp_path, REVIEWS), REVIEWS)
        return str(caught.value)

    rows[3]["topics"] = []
    assert f"none for {labels[3]} of the task topic, version 1; label rows" in refusal()
    # One that is held out is not learned from, and each label that lacks rows is named at once.
    rows[-1]["topics"] = [{"topic": labels[3], "polarity": "positive"}]
    assert is_held_out(rows[-1]["text"])
    rows[4]["topics"] = []
    rows[23]["sentiment"] = "positive"
    said = refusal()
    assert f"{labels[3]}, {labels[4]} of the task topic" in said
    assert "mixed of the task sentiment" in said


def test_too_few_rows_to_hold_any_out_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "reviews_train", [_review("One review")])
    with pytest.raises(DataError, match="1 rows gave"):
        read_data(tmp_path, REVIEWS)


def test_held_out_rows_are_always_the_same_and_never_learned_from() -> None:
    rows = [{"text": f"review number {number}"} for number in range(2000)]
    learn, held = split_held_out(rows)
    again = split_held_out(reversed(rows))[1]
    assert {row["text"] for row in held} == {row["text"] for row in again}
    assert len(learn) + len(held) == 2000
    assert 0.06 < len(held) / 2000 < 0.10
