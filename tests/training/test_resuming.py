"""A training that was killed goes on where it was, as if it had not been."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from reviewmesh_models.training.causal.trainer import newest_checkpoint
from reviewmesh_worker.tasks import SENTIMENT
from tests.broker import wait_until
from tests.training.command import run_training, start_training, write_config
from tests.training.generated import write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", reviews=200, entities=40)


def _kill_after_a_checkpoint(config: Path, data: Path, output: Path) -> Path:
    """The folder that a training leaves when it is killed in the middle."""
    beside = output.with_name(f"{output.name}.training")
    process = start_training(config, data, output)
    try:
        wait_until(
            lambda: newest_checkpoint(beside) is not None or process.poll() is not None,
            120,
            "a checkpoint",
        )
        assert process.poll() is None, process.communicate()[0]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not output.exists()
    return beside


def test_a_killed_training_makes_the_same_steps(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tasks=[SENTIMENT], epochs=4, checkpoint_steps=10)
    run_training(config, data, tmp_path / "whole")

    beside = _kill_after_a_checkpoint(config, data, tmp_path / "killed")
    # What a kill leaves of a checkpoint that was being written.
    (beside / "checkpoint-999999").mkdir()

    said = run_training(config, data, tmp_path / "killed")
    assert "going on after step" in said
    whole, resumed = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    for name, weights in whole.items():
        assert weights.equal(resumed[name]), name
