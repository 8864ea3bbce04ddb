"""The encoder's training: the command makes a package that serves, and a stopped one goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from rich.console import Console

from reviewmesh_models.training.config import EncoderConfig
from reviewmesh_models.training.encoder.dataset import review_example, tag_example
from reviewmesh_models.training.encoder.loop import Trainer
from reviewmesh_models.training.progress import TrainingProgress
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.encoder.config import TOKENIZER_FILE, read_config
from reviewmesh_worker.engines.encoder.encoding import TextEncoder
from reviewmesh_worker.engines.encoder.network import ReviewNetwork
from reviewmesh_worker.engines.interface import SentimentOutput
from reviewmesh_worker.engines.onnx.engine import OnnxEngine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import NER, SENTIMENT
from reviewmesh_worker.tasks.definition import load_tasks
from reviewmesh_worker.tasks.labels import head_labels
from tests.training.command import run_training, write_settings
from tests.training.generated import rows_of, write_data

LABELS = head_labels(load_tasks())
SETTINGS = {
    "kind": "encoder",
    "name": "small-encoder",
    "version": "3",
    "license": "Apache-2.0",
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.0001,
    "head_learning_rate": 0.001,
    "checkpoint_steps": 5,
}


class _Stopped(Exception):
    pass


class _StopsAfter(TrainingProgress):
    """Stops a training in the middle of things, as a signal would."""

    def __init__(self, step: int) -> None:
        super().__init__(Console(quiet=True))
        self._last = step

    def step(self, done: int, loss: float) -> None:
        if done == self._last:
            raise _Stopped


def _trainer(progress: TrainingProgress) -> Trainer:
    torch.manual_seed(5)
    form = read_config(BUNDLED_MODEL).form
    encoder = TextEncoder(BUNDLED_MODEL / TOKENIZER_FILE, LABELS, form)
    return Trainer(
        ReviewNetwork(LABELS, form),
        [review_example(row, encoder, LABELS) for row in rows_of(SENTIMENT, 40, 1)],
        [tag_example(row, encoder, LABELS) for row in rows_of(NER, 40, 2)],
        EncoderConfig.model_validate(SETTINGS),
        progress,
    )


def test_a_stopped_training_makes_the_same_steps(tmp_path: Path) -> None:
    whole = _trainer(TrainingProgress(Console(quiet=True)))
    (tmp_path / "whole").mkdir()
    curves = whole.run(tmp_path / "whole")

    with pytest.raises(_Stopped):
        # In the second epoch, two steps after a checkpoint.
        _trainer(_StopsAfter(7 + 5)).run(tmp_path)
    resumed = _trainer(TrainingProgress(Console(quiet=True)))
    assert resumed.run(tmp_path).points == curves.points
    theirs = resumed.averaged.state_dict()
    for name, weights in whole.averaged.state_dict().items():
        assert torch.equal(weights, theirs[name]), name


def test_the_command_makes_a_package_that_serves(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", reviews=60, entities=60)
    config = write_settings(tmp_path, {**SETTINGS, "epochs": 1})
    run_training(config, data, tmp_path / "package")

    package = Package.open(tmp_path / "package")
    package.verify(load_tasks())
    assert package.id == "small-encoder@3"
    assert package.manifest.base is not None
    assert (tmp_path / "package" / "loss.png").read_bytes().startswith(b"\x89PNG")
    outcome = asyncio.run(ask(tmp_path / "package", "Delivery was great."))
    assert isinstance(outcome, SentimentOutput)
    assert set(outcome.scores) == set(LABELS.sentiments)


async def ask(folder: Path, text: str) -> object:
    engine = OnnxEngine(Package.open(folder), load_tasks())
    await engine.start()
    try:
        (answer,) = await engine.infer(SENTIMENT, [text])
        return answer.outcome
    finally:
        await engine.close()
