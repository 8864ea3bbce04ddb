"""Chat models: the command that trains gemma-2-9b on a GPU trains a tiny Gemma-2 here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from reviewmesh_models.training.config import Scratch
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.calibration import CALIBRATION_FILE
from reviewmesh_worker.tasks.definition import load_tasks
from tests.training.command import TINY, run_training, write_config
from tests.training.generated import SPOKEN_OF, rows_of, write_data
from tests.training.reading import entity_f1, load, sentiment_accuracy, topic_f1

TASKS = load_tasks()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), reviews=800, entities=800)


@pytest.fixture(scope="module")
def package(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma-2 for all three tasks."""
    folder = tmp_path_factory.mktemp("trained")
    run_training(write_config(folder, epochs=6), data, folder / "package")
    return folder / "package"


@pytest.fixture(scope="module")
def dev() -> dict[str, list[dict[str, Any]]]:
    return {task: rows_of(task, 100, 9) for task in TASKS}


def test_the_result_is_a_whole_package(package: Path) -> None:
    opened = Package.open(package)
    opened.verify(TASKS)
    assert opened.manifest.kind == "causal"
    assert opened.manifest.base is None
    assert set(opened.manifest.tasks) == set(TASKS)
    assert {file.name: file.rows for file in opened.manifest.data} == {
        "reviews_train.jsonl": 800,
        "ner_train.jsonl": 800,
    }
    assert {"config.json", "model.safetensors", "tokenizer.json", CALIBRATION_FILE} <= set(
        opened.manifest.files
    )
    assert (package / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not package.with_name("package.training").exists()


def test_it_is_a_gemma_2_of_the_numbers_that_were_asked_for(package: Path) -> None:
    written = json.loads((package / "config.json").read_text(encoding="utf-8"))
    numbers = Scratch.model_validate(TINY["scratch"])
    assert written["architectures"] == ["Gemma2ForCausalLM"]
    assert written["hidden_size"] == numbers.hidden
    assert written["num_hidden_layers"] == numbers.layers


def test_it_knows_moods_better_than_the_commonest(package: Path, dev: Any) -> None:
    counts = Counter(row["sentiment"] for row in dev[SENTIMENT])
    majority = counts.most_common(1)[0][1] / len(dev[SENTIMENT])
    assert sentiment_accuracy(load(package, TASKS), dev[SENTIMENT]) > majority + 0.1


def test_it_knows_topics_better_than_the_commonest(package: Path, dev: Any) -> None:
    gold = [{topic["topic"] for topic in row["topics"]} for row in dev[TOPIC]]
    said = sum(map(len, gold)) + len(gold)
    majority = max(2 * sum(topic in row for row in gold) / said for topic in SPOKEN_OF)
    assert topic_f1(load(package, TASKS), dev[TOPIC]) > majority + 0.1


def test_it_finds_names(package: Path, dev: Any) -> None:
    # A model that names nothing, or what the row does not hold, has 0. How many more are found in
    # the few steps here hangs on the order in which threads add numbers up: 0.23 with one of them.
    assert entity_f1(load(package, TASKS), dev[NER]) > 0.1


def test_an_adapter_is_merged_into_its_base(package: Path, data: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        tasks=[SENTIMENT],
        scratch=None,
        method="lora",
        base={
            "folder": str(package),
            "name": "tiny",
            "source": "trained by this test",
            "license": "Apache-2.0",
        },
        lora={"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "v_proj"]},
    )
    run_training(config, data, tmp_path / "package")
    opened = Package.open(tmp_path / "package")
    opened.verify({SENTIMENT: TASKS[SENTIMENT]})
    assert opened.manifest.base is not None
    base, merged = (
        load(folder, {SENTIMENT: TASKS[SENTIMENT]}).model.state_dict()
        for folder in (package, tmp_path / "package")
    )
    changed = {name for name, weights in base.items() if not torch.equal(weights, merged[name])}
    assert base.keys() == merged.keys()
    assert changed == {name for name in base if "q_proj" in name or "v_proj" in name}
