"""How fast the encoder learns, and in which precision it computes."""

from __future__ import annotations

import math
from typing import Final

import torch

from reviewmesh_models.training.config import EncoderConfig

_WARMUP: Final = 0.06


def rate_at(progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine decay to zero."""
    if progress < _WARMUP:
        return max(progress, 0.002) / _WARMUP
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARMUP) / (1 - _WARMUP)))


def mixed_precision(config: EncoderConfig) -> torch.autocast:
    """A context: matrix products in the config's type, weights and sums in float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=config.dtype == "bfloat16")
