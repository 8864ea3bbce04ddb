"""Settings of the vllm engine, and what a package must have for them; vLLM itself is not needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from reviewmesh_kit.settings import problems
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.engines.vllm.arguments import engine_arguments
from reviewmesh_worker.engines.vllm.engine import open_engine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.serving.settings import Settings
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.calibration import neutral_chat_calibration
from tests.packages import DEFINED, small_package

LOAD_FORMAT = "REVIEWMESH_VLLM__LOAD_FORMAT"


@pytest.fixture
def without_weights(tmp_path: Path) -> Package:
    neutral_chat_calibration(DEFINED[SENTIMENT].label_ids, DEFINED[TOPIC].label_ids).write(tmp_path)
    return small_package(tmp_path, files={"config.json": b"{}"}, kind="causal")


@pytest.mark.parametrize("encoder", [False, True])
def test_weights_are_those_of_the_package_if_nothing_else_is_set(
    encoder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_arguments(Settings().vllm, "cpu", encoder)["load_format"] == "safetensors"
    monkeypatch.setenv(LOAD_FORMAT, "dummy")
    assert engine_arguments(Settings().vllm, "h200", encoder)["load_format"] == "dummy"


def test_a_package_without_weights_is_one_and_opens_for_random_ones(
    without_weights: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_weights.verify(DEFINED)
    monkeypatch.setenv(LOAD_FORMAT, "dummy")
    assert set(open_engine(without_weights, DEFINED, Settings().engines).tasks) == set(DEFINED)


def test_a_package_with_weights_never_answers_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOAD_FORMAT, "dummy")
    with pytest.raises(EngineLoadError, match=rf"{LOAD_FORMAT}.*model\.onnx"):
        open_engine(Package.open(BUNDLED_MODEL), DEFINED, Settings().engines)


def test_a_misspelt_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWMESH_VLLM__LOADFORMAT", "dummy")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert problems(caught.value) == ["REVIEWMESH_VLLM__LOADFORMAT: there is no such setting"]
