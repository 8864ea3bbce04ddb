"""A model from scratch learns to copy before it learns what to copy.

To name what stands in a review is to copy it, token by token, and labelled rows are far too few to
find that out from. Random tokens that are said twice teach nothing else: the second time, all but
the first is known (Olsson et al., 2022, "In-context Learning and Induction Heads"). For a thousand
steps there is no sign of it, then within a few hundred it is learned.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reviewmesh_models.training.progress import TrainingProgress

_SHORTEST: Final = 8
_LONGEST: Final = 40
_TOKENS_PER_STEP: Final = 1200
_RATE: Final = 2e-3
_WARMUP_STEPS: Final = 40


def learn_to_copy(
    model: Any, ordinary: tuple[int, int], steps: int, seed: int, progress: TrainingProgress
) -> None:
    """Train in place on runs of random tokens. `ordinary` is the range of ids that are no turns."""
    random = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.98))
    model.train()
    progress.begin("copying", steps, 0)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, step / _WARMUP_STEPS)
        loss = _loss(model, _runs(ordinary, random))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.step(step, loss.item())


def _runs(ordinary: tuple[int, int], random: np.random.Generator) -> Tensor:
    """(runs, tokens): each run of tokens, and itself again."""
    length = int(random.integers(_SHORTEST, _LONGEST))
    count = _TOKENS_PER_STEP // (2 * length)
    once = torch.from_numpy(random.integers(*ordinary, (count, length)))
    return torch.cat((once, once), 1)


def _loss(model: Any, ids: Tensor) -> Tensor:
    """Of what is known: all but the first token of the second time."""
    length = ids.shape[1] // 2
    # Where the second time's tokens but for the last stand, each of which tells the one after it.
    logits = model(input_ids=ids, use_cache=False).logits[:, length:-1]
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, length + 1 :].flatten())
