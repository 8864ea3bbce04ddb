"""Rows of a batch as the network takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reviewmesh_models.training.encoder.dataset import pad


def inputs_of(
    ids: Sequence[NDArray[np.int64]],
    shapes: Sequence[NDArray[np.int64]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, shapes and the mask of what is no padding: (rows, tokens) each."""
    mask = pad([np.ones(len(row), dtype=np.float32) for row in ids])
    return torch.from_numpy(pad(ids)), torch.from_numpy(pad(shapes)), torch.from_numpy(mask)
