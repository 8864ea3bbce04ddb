"""A real worker with packages of the real encoder: what it serves, refuses, and changes to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_worker.engines.encoder.config import WEIGHTS_FILE
from reviewmesh_worker.packages.registry import Registry
from tests.inference import WorkerProcess, infer, soon
from tests.packages import (
    DEFINED,
    another_version,
    cut_short,
    encoder_copy,
    small_package,
    tampered,
)

TASKS = list(DEFINED)
WorkerFactory = Callable[..., WorkerProcess]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """The encoder as version 1 and 2, and a third with weights that are cut short; 1 serves."""
    registry = Registry(tmp_path / "registry")
    for version in ("1", "2", "3"):
        folder = encoder_copy(tmp_path / version, version).folder
        if version == "3":
            # Its manifest is right: whoever made it had no better weights.
            cut_short(folder / WEIGHTS_FILE)
            small_package(folder, "3", files={}, name="e5-reviews")
        registry.add(folder, DEFINED)
        shutil.rmtree(folder)
    promote(registry, "1")
    return registry


@pytest.fixture
def start(tmp_path: Path) -> Iterator[WorkerFactory]:
    made: list[WorkerProcess] = []

    def make(ready: bool = True, **settings: object) -> WorkerProcess:
        names = {f"REVIEWMESH_WORKER__{name.upper()}": str(v) for name, v in settings.items()}
        worker = WorkerProcess(tmp_path / f"worker-{len(made)}", names)
        made.append(worker)
        if ready:
            worker.start()
        else:
            worker.process.start()
        return worker

    yield make
    for worker in made:
        worker.stop()


def promote(registry: Registry, version: str, *tasks: str) -> None:
    registry.promote(f"e5-reviews@{version}", DEFINED, lambda candidate, serving, tasks: [], tasks)


def versions(worker: WorkerProcess) -> dict[str, str]:
    described = worker.stub.Describe(inference_pb2.DescribeRequest(), timeout=5)
    return {task.task: task.model_version for task in described.tasks}


def answered_by(worker: WorkerProcess, task: str) -> str:
    answer = worker.stub.Infer(infer(["Anna was very helpful."], task=task), timeout=10)
    assert answer.results[0].WhichOneof("outcome") == task
    return str(answer.lineage.model_version)


def task_versions(worker: WorkerProcess) -> dict[str, str]:
    """By task, the version that the lineage of an answer names."""
    return {
        task: str(worker.stub.Infer(infer(["Fine."], task=task), timeout=30).lineage.prompt_version)
        for task in TASKS
    }


def swaps(worker: WorkerProcess, outcome: str) -> float:
    return worker.metric(f'reviewmesh_worker_swaps_total{{outcome="{outcome}"}}')


def events(worker: WorkerProcess) -> list[dict[str, Any]]:
    lines = worker.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def end_of(worker: WorkerProcess) -> tuple[int, str]:
    """Exit code, and the reason in its last words."""
    code = worker.process.wait(30)
    return code, str(events(worker)[-1]["reason"]) if code == 1 else worker.log.read_text()


@pytest.mark.parametrize("swap", ["beside", "drain"])
def test_a_worker_follows_the_aliases_and_keeps_what_it_has_when_they_are_off(
    registry: Registry, start: WorkerFactory, swap: str
) -> None:
    worker = start(model_registry=registry.folder, swap=swap)
    done = {"beside": "beside", "drain": "drained"}[swap]
    assert versions(worker) == dict.fromkeys(TASKS, "1")

    promote(registry, "2", "topic")
    soon(lambda: versions(worker).get("topic") == "2", "topic is served by version 2")
    assert [answered_by(worker, task) for task in TASKS] == ["1", "2", "1"]
    promote(registry, "2")
    soon(lambda: versions(worker) == dict.fromkeys(TASKS, "2"), "all of it is")
    registry.rollback("e5-reviews@2", DEFINED, ["ner"])
    soon(lambda: versions(worker).get("ner") == "1", "ner is rolled back")
    soon(lambda: swaps(worker, done) == 3, "three changes were followed")

    # Weights that do not load.
    promote(registry, "3", "sentiment")
    soon(lambda: swaps(worker, "failed") == 1, "it fails to load")
    soon(lambda: worker.health("sentiment") == "SERVING", "the old one serves")
    assert versions(worker) == {"ner": "1", "topic": "2", "sentiment": "2"}
    assert [answered_by(worker, task) for task in TASKS] == ["1", "2", "2"]
    meanwhile = start(model_registry=registry.folder)
    assert [answered_by(meanwhile, task) for task in TASKS] == ["1", "2", "2"]
    registry.rollback("e5-reviews@3", DEFINED)

    # Weights that are not those of the manifest, under an alias as it would be promoted.
    weights = registry.package("e5-reviews@1").folder / WEIGHTS_FILE
    good = weights.read_bytes()
    tampered(weights)
    aliases = registry.folder / "aliases"
    kept = (aliases / "topic.json").read_text()
    (aliases / "topic.json").write_text((aliases / "ner.json").read_text())
    soon(lambda: swaps(worker, "refused") == 1, "it is refused")
    refused = next(e for e in events(worker) if e.get("outcome") == "refused")
    assert refused["tasks"] == ["topic"] and f"{weights}: expected the SHA-256" in refused["reason"]
    assert versions(worker)["topic"] == "2" and answered_by(worker, "topic") == "2"
    weights.write_bytes(good)
    (aliases / "topic.json").write_text(kept)
    promote(registry, "1", "topic")
    soon(lambda: versions(worker)["topic"] == "1", "mended and promoted anew it serves")
    assert worker.refused("UNAVAILABLE") == 0


def test_each_package_serves_the_version_of_a_task_that_it_was_made_for(
    start: WorkerFactory, tmp_path: Path
) -> None:
    made_for = DEFINED | {"topic": another_version(tmp_path, "topic")}
    registry = Registry(tmp_path / "registry")
    registry.add(encoder_copy(tmp_path / "1", "1").folder, DEFINED)
    registry.add(encoder_copy(tmp_path / "2", "2", made_for, carries=True).folder, DEFINED)
    promote(registry, "1")
    worker = start(model_registry=registry.folder)
    assert task_versions(worker) == {"ner": "1", "topic": "1", "sentiment": "1"}

    promote(registry, "2")
    soon(lambda: versions(worker) == dict.fromkeys(TASKS, "2"), "the second serves")
    assert task_versions(worker) == {"ner": "1", "topic": "2", "sentiment": "1"}
    fixed = start(model=registry.package("e5-reviews@2").folder)
    assert task_versions(fixed) == {"ner": "1", "topic": "2", "sentiment": "1"}

    registry.rollback("e5-reviews@2", DEFINED)
    soon(lambda: versions(worker) == dict.fromkeys(TASKS, "1"), "the first serves again")
    assert task_versions(worker) == {"ner": "1", "topic": "1", "sentiment": "1"}
    assert worker.refused("UNAVAILABLE") == 0


def test_what_cannot_be_served_ends_the_start_with_a_reason(
    registry: Registry, start: WorkerFactory, tmp_path: Path
) -> None:
    package = encoder_copy(tmp_path / "cut", "1")
    cut_short(package.folder / WEIGHTS_FILE)
    code, reason = end_of(start(ready=False, model=package.folder))
    assert code == 1 and "model.onnx: expected the SHA-256" in reason and "cut short" in reason

    broken = registry.package("e5-reviews@3").folder
    code, reason = end_of(start(ready=False, model=broken))
    assert code == 1 and "expected ONNX weights" in reason

    other = DEFINED | {"ner": replace(DEFINED["ner"], version="2")}
    package = encoder_copy(tmp_path / "other", "1", other)
    code, reason = end_of(start(ready=False, model=package.folder))
    assert code == 1 and "made for version 2 of the task ner" in reason

    code, reason = end_of(start(ready=False, model=small_package(tmp_path / "small").folder))
    assert code == 1 and "heads.json" in reason

    chat = small_package(tmp_path / "chat", kind="causal", name="chat")
    code, reason = end_of(start(ready=False, model=chat.folder, engine="onnx"))
    assert code == 1 and "chat@1 is of the kind causal" in reason

    (registry.folder / "aliases/ner.json").unlink()
    code, reason = end_of(start(ready=False, model_registry=registry.folder))
    assert code == 1 and "serves the task ner; promote one" in reason


def test_wrong_settings_end_with_their_names(start: WorkerFactory, tmp_path: Path) -> None:
    code, said = end_of(start(ready=False, model=tmp_path, model_registry=tmp_path))
    assert code == 2 and "REVIEWMESH_WORKER__MODEL_REGISTRY" in said
    code, said = end_of(start(ready=False, modle=tmp_path))
    assert code == 2 and said.startswith("REVIEWMESH_WORKER__MODLE: ")
    code, said = end_of(start(ready=False, tasks="topic,poetry"))
    assert code == 1 and "REVIEWMESH_WORKER__TASKS names poetry" in said


def test_a_worker_serves_the_tasks_that_it_is_told_to(
    registry: Registry, start: WorkerFactory
) -> None:
    for name in ("ner", "sentiment"):
        (registry.folder / f"aliases/{name}.json").unlink()
    worker = start(model_registry=registry.folder, tasks="topic")
    assert versions(worker) == {"topic": "1"}
    assert answered_by(worker, "topic") == "1"
    with pytest.raises(grpc.RpcError) as refused:
        answered_by(worker, "ner")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
