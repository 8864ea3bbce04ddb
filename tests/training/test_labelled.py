"""Rows that teachers labelled are what `reviewmesh-models train` learns from."""

from __future__ import annotations

import json
import random
from pathlib import Path

from reviewmesh_models.labelling.results import labelled, write_results
from reviewmesh_models.labelling.reviews import Review
from reviewmesh_models.labelling.store import Store
from reviewmesh_worker.packages.manifest import Package
from tests.training.command import run_training, write_config
from tests.training.generated import named, of_the_rest, review
from tests.unit.models.labelling.made import TASKS, make


def test_training_makes_a_package_of_what_teachers_said(tmp_path: Path) -> None:
    random_ = random.Random(5)
    rest = of_the_rest()
    rows = [review(random_, number) for number in range(60 - len(rest["reviews"]))]
    rows += [named(random_, number) for number in range(20 - len(rest["ner"]))]
    rows += [*rest["reviews"], *rest["ner"]]
    whole = [{"sentiment": "neutral", "topics": [], "entities": [], **row} for row in rows]
    folder = tmp_path / "labels"
    make(
        folder,
        [Review(row["text"]) for row in whole],
        {
            task: {teacher: [{field: row[field]} for row in whole] for teacher in ("one", "two")}
            for task, field in (
                ("sentiment", "sentiment"),
                ("topic", "topics"),
                ("ner", "entities"),
            )
        },
    )
    with Store(folder) as store:
        written = write_results(labelled(store, TASKS, {}), folder)
    assert written["reviews_train.jsonl"] == written["ner_train.jsonl"] == 80

    run_training(write_config(tmp_path), folder, tmp_path / "package")

    package = Package.open(tmp_path / "package")
    package.verify(TASKS)
    assert {source.rows for source in package.manifest.data} == {80}
    first = json.loads((folder / "reviews_train.jsonl").read_text().split("\n")[0])
    assert first == {key: rows[0][key] for key in ("text", "sentiment", "topics")}
