"""Layer distillation: a network with some of a base's layers learns to do what all of them do.

Each kept layer learns the output of the base just before the next kept one, so that it does the
work of those that were left out between them; the last learns the base's own output. As in "Patient
Knowledge Distillation for BERT" (Sun et al., 2019), over all tokens. Without this, a network whose
layers follow each other for the first time has to find that out from the labelled rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reviewmesh_models.training.config import E5Base, EncoderConfig
from reviewmesh_models.training.encoder.checkpoint import write_checkpoint
from reviewmesh_models.training.encoder.dataset import batches, with_specials
from reviewmesh_models.training.encoder.inputs import inputs_of
from reviewmesh_models.training.encoder.schedule import mixed_precision, rate_at
from reviewmesh_models.training.progress import TrainingProgress
from reviewmesh_worker.engines.encoder.encoding import TextEncoder
from reviewmesh_worker.engines.encoder.network import Encoder, ReviewNetwork, load_pretrained

_FILE: Final = "distillation.pt"
_PEAK: Final = 3e-4
"""Learning rate."""


def distill(
    network: ReviewNetwork,
    base: E5Base,
    weights: Mapping[str, Tensor],
    texts: Sequence[NDArray[np.int64]],
    config: EncoderConfig,
    checkpoints: Path,
    progress: TrainingProgress,
) -> None:
    """Trains the layers of `network` in place; goes on from a checkpoint in the folder.

    `weights` are of all layers of the base; `texts` are ids of pieces with the special ones.
    Without dropout: nothing is random but the order of the texts.
    """
    student = network.encoder.eval()
    teacher = _teacher(student, weights)
    learned = [p for layer in student.layers for p in layer.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=_PEAK, weight_decay=0.01, fused=True)
    # Counted from 1: what precedes the next kept layer.
    taught = [*base.layers[1:], len(teacher.layers)]
    random = np.random.default_rng(config.seed)
    plan: list[list[NDArray[np.int64]]] = []
    for _ in range(base.distillation_epochs):
        plan += batches(texts, [len(ids) for ids in texts], config.batch_size, random)
    file = checkpoints / _FILE
    done = _restore(file, student, optimizer) if file.is_file() else 0
    progress.begin("distillation", len(plan), done)
    for step in range(done, len(plan)):
        for group in optimizer.param_groups:
            group["lr"] = _PEAK * rate_at(step / len(plan))
        loss = _loss(student, teacher, taught, plan[step], config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        progress.step(step + 1, loss.item())
        if (step + 1) % config.checkpoint_steps == 0 or step + 1 == len(plan):
            _save(file, student, optimizer, step + 1)


def _teacher(student: Encoder, weights: Mapping[str, Tensor]) -> Encoder:
    numbers = {int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")}
    form = replace(student.form, layers=len(numbers))
    teacher = Encoder(form, dropout=0.0).requires_grad_(False).eval()
    load_pretrained(teacher, weights, range(form.layers))
    return teacher


def pieces_of(texts: Sequence[str], encoder: TextEncoder) -> list[NDArray[np.int64]]:
    """Each different text's ids, with the special ones."""
    encoded = [encoder.encode(text) for text in dict.fromkeys(texts)]
    return [with_specials(one.ids, one.shapes, encoder.form)[0] for one in encoded]


def _loss(
    student: Encoder,
    teacher: Encoder,
    taught: Sequence[int],
    batch: Sequence[NDArray[np.int64]],
    config: EncoderConfig,
) -> Tensor:
    """Mean over the layers of the squared error, in parts of the teacher's variance."""
    ids, shapes, mask = inputs_of(batch, [np.zeros_like(row) for row in batch])
    with mixed_precision(config):
        with torch.no_grad():
            theirs = teacher.states(ids, shapes, mask)
        ours = student.states(ids, shapes, mask)
    real = mask.bool()
    losses = []
    for state, number in zip(ours, taught, strict=True):
        target = theirs[number - 1][real].float()
        losses.append(functional.mse_loss(state[real].float(), target) / target.var())
    return torch.stack(losses).mean()


def _save(file: Path, student: Encoder, optimizer: torch.optim.Optimizer, steps: int) -> None:
    state = {
        "layers": student.layers.state_dict(),
        "optimizer": optimizer.state_dict(),
        "steps": steps,
    }
    write_checkpoint(file, state)


def _restore(file: Path, student: Encoder, optimizer: torch.optim.Optimizer) -> int:
    state = torch.load(file, weights_only=True)
    student.layers.load_state_dict(state["layers"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["steps"])
