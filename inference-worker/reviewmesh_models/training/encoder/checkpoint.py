"""A checkpoint is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def write_checkpoint(file: Path, state: Mapping[str, Any]) -> None:
    written = file.with_suffix(".new")
    torch.save(state, written)
    # Atomic, whenever the process is killed.
    os.replace(written, file)
