"""Rows that were written for this project: what is made of a file, and the files that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reviewmesh_models.training.config import CONFIGS
from reviewmesh_models.training.rows import DataError, misplaced_entity, normalised
from reviewmesh_models.training.written_rows import read_written
from reviewmesh_worker.tasks import NER, TOPIC
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()
FOLDER = CONFIGS.parent / "written"
PHONE, SPEED = "staff-support.phone", "logistics-rides.speed"
FILE = {
    "reviews": {
        PHONE: {"negative": ["Nobody answers"]},
        SPEED: {"negative": ["Came a week late."], "positive": ["Came in a day."]},
    },
    "mixed": [{"text": "Slow, but they answer.", "topics": {SPEED: "negative", PHONE: "positive"}}],
    "neutral": ["It came on Friday."],
    "names": {"person": ["Ann", "Bo Li"], "location": ["Rome"]},
    "sentences": ["{person} in {location} helped.", "Nobody helped."],
}


def _write(folder: Path, content: object, language: str = "en") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{language}.yaml").write_text(
        yaml.safe_dump(content, sort_keys=False), encoding="utf-8"
    )
    return folder


def test_a_file_gives_its_sentences_and_pairs_of_one_polarity(tmp_path: Path) -> None:
    written = read_written(_write(tmp_path / "w", FILE), TASKS)
    said = [
        (row["sentiment"], {topic["topic"]: topic["polarity"] for topic in row["topics"]})
        for row in written.reviews
    ]
    assert said == [
        ("negative", {PHONE: "negative"}),
        ("negative", {SPEED: "negative"}),
        ("positive", {SPEED: "positive"}),
        ("mixed", {SPEED: "negative", PHONE: "positive"}),
        ("neutral", {}),
        ("negative", {PHONE: "negative", SPEED: "negative"}),
    ]
    pair = written.reviews[-1]["text"]
    assert pair in {"Nobody answers. Came a week late.", "Came a week late. Nobody answers"}
    assert written.file.rows == len(written.reviews) + len(written.entities)


def test_places_are_filled_with_names_that_stand_there(tmp_path: Path) -> None:
    written = read_written(_write(tmp_path / "w", FILE), TASKS)
    texts = [row["text"] for row in written.entities]
    assert set(texts) == {
        "Ann in Rome helped.",
        "Bo Li in Rome helped.",
        "Nobody helped.",
    }
    assert texts.count("Nobody helped.") == 1
    for row in written.entities:
        assert misplaced_entity(TASKS[NER], row) is None
        assert len(row["entities"]) == (0 if row["text"] == "Nobody helped." else 2)
        assert row["labels_annotated"] == list(TASKS[NER].label_ids)


def test_languages_without_blanks_are_joined_without(tmp_path: Path) -> None:
    content = {
        **FILE,
        "reviews": {PHONE: {"negative": ["不接电话。"]}, SPEED: {"negative": ["很慢。"]}},
    }
    written = read_written(_write(tmp_path / "w", content, "zh"), TASKS)
    assert written.reviews[-1]["text"] in {"不接电话。很慢。", "很慢。不接电话。"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reviews": {"other": {"positive": ["x"]}}}, "found other: positive"),
        ({"reviews": {PHONE: {"good": ["x"]}}}, f"found {PHONE}: good"),
        ({"names": {"animal": ["Rex"]}}, "found 'animal'"),
        ({"sentences": ["{product} broke."]}, "names for {product}, found none"),
        ({"neutral": [""]}, "neutral.0: String should have at least 1 character"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = _write(tmp_path / "w", {**FILE, **change})
    with pytest.raises(DataError) as caught:
        read_written(folder, TASKS)
    assert "en.yaml" in str(caught.value) and said in str(caught.value)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected YAML files of written rows"):
        read_written(tmp_path, TASKS)


def test_the_files_speak_of_every_topic_and_name_in_every_language() -> None:
    written = read_written(FOLDER, TASKS)
    languages = {file.stem for file in FOLDER.glob("*.yaml")}
    assert len(languages) == 24
    for topic in TASKS[TOPIC].label_ids:
        about = [row for row in written.reviews if topic in {t["topic"] for t in row["topics"]}]
        assert len(about) >= 6 * len(languages)
    for row in written.entities:
        assert misplaced_entity(TASKS[NER], row) is None


def test_no_golden_row_was_written_to_learn_from() -> None:
    written = read_written(FOLDER, TASKS)
    texts = {normalised(row["text"]) for row in (*written.reviews, *written.entities)}
    for task in TASKS.values():
        assert not texts & {normalised(row["text"]) for row in task.golden}
