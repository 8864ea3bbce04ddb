"""`reviewmesh-models train`, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

TINY: dict[str, Any] = {
    "kind": "causal",
    "name": "tiny",
    "version": "1",
    "license": "Apache-2.0",
    "tasks": ["sentiment", "topic", "ner"],
    "method": "full",
    "scratch": {
        "vocabulary": 1200,
        "hidden": 64,
        "layers": 2,
        "heads": 2,
        "key_value_heads": 1,
        "head": 32,
        "inner": 128,
        "initializer": 0.125,
        "copying_steps": 10,
    },
    "context": 640,
    "packs_per_step": 1,
    "epochs": 1,
    "learning_rate": 0.003,
    "dtype": "float32",
    "checkpoint_steps": 1000,
}


def write_config(folder: Path, **changes: Any) -> Path:
    """The tiny config with some settings changed; None takes one out."""
    content = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
    return write_settings(folder, content)


def write_settings(folder: Path, settings: dict[str, Any]) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


def start_training(config: Path, data: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reviewmesh_models.cli", "train", str(config)]
    return subprocess.Popen(
        [*command, "--data", str(data), "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_training(config: Path, data: Path, output: Path) -> str:
    """What it printed. The training must succeed."""
    process = start_training(config, data, output)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said
