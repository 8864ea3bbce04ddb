"""The training loop: review batches and entity batches in turn, one optimizer, averaged weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reviewmesh_worker.engines.encoder.network import ReviewNetwork
from reviewmesh_worker.training.dataset import ReviewExample, TagExample, batches, pad

_BATCH_SIZE: Final = 32
_ENCODER_RATE: Final = 1e-4
_HEAD_RATE: Final = 1e-3
_WARMUP: Final = 0.06
_AVERAGE_EVERY: Final = 4
_AVERAGE_DECAY: Final = 0.98
"""Per averaging, so the average looks back some 200 steps."""
_TOPIC_WEIGHT: Final = 3.0
_POLARITY_WEIGHT: Final = 0.5
_TAG_WEIGHT: Final = 1.0
# positive, negative, neutral, mixed: the rare ones count more, or they are never said.
_SENTIMENT_WEIGHTS: Final = (0.9, 1.0, 1.7, 2.0)
_LABEL_SMOOTHING: Final = 0.03
_FORGET_CASE: Final = 0.1
"""Share of entity rows that are read as if written in lower case throughout."""
_SHARE_OF_SECOND_STYLE: Final = 0.4
"""Share of the Broad Twitter Corpus that an epoch sees: it is large and far from reviews."""


@dataclass(frozen=True, slots=True)
class _ReviewBatch:
    examples: list[ReviewExample]
    kind: str = "review"


@dataclass(frozen=True, slots=True)
class _TagBatch:
    """Examples of one annotation style."""

    examples: list[TagExample]
    kind: str = "tags"


Batch = _ReviewBatch | _TagBatch


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to train: so many epochs, or so many minutes if those are over first."""

    epochs: int
    minutes: float
    seed: int


class Trainer:
    """Trains a network in place; `averaged` is the one to keep."""

    def __init__(
        self,
        network: ReviewNetwork,
        reviews: Sequence[ReviewExample],
        tagged: Sequence[TagExample],
        schedule: Schedule,
        report: Callable[[str], None],
    ) -> None:
        self.averaged = copy.deepcopy(network).requires_grad_(False)
        self._network = network
        self._reviews = reviews
        self._tagged = tagged
        self._schedule = schedule
        self._report = report
        self._random = np.random.default_rng(schedule.seed)
        self._weights = torch.tensor(_SENTIMENT_WEIGHTS)
        # Rare words would move far on few examples; the pretrained word vectors stay as they are.
        network.encoder.words.requires_grad_(False)
        self._optimizer = _optimizer(network)
        self._steps = 0

    def run(self, after_epoch: Callable[[ReviewNetwork], None]) -> None:
        torch.manual_seed(self._schedule.seed)
        started = time.monotonic()
        for epoch in range(self._schedule.epochs):
            plan = self._plan_epoch()
            self._network.train()
            losses: dict[str, list[float]] = {"review": [], "tags": []}
            for index, batch in enumerate(plan):
                done = (epoch + index / len(plan)) / self._schedule.epochs
                spent = (time.monotonic() - started) / 60 / self._schedule.minutes
                if spent >= 1:
                    self._report(f"out of time in epoch {epoch + 1}")
                    after_epoch(self.averaged)
                    return
                kind, loss = self._step(batch, max(done, spent))
                losses[kind].append(loss)
                if index % 50 == 49:
                    self._report(_progress(epoch, index, len(plan), started, losses))
            after_epoch(self.averaged)

    def _plan_epoch(self) -> list[Batch]:
        tagged = [
            example
            for example in self._tagged
            if not example.style or self._random.random() < _SHARE_OF_SECOND_STYLE
        ]
        plan: list[Batch] = []
        lengths = [len(example.ids) for example in self._reviews]
        plan += [
            _ReviewBatch(batch)
            for batch in batches(self._reviews, lengths, _BATCH_SIZE, self._random)
        ]
        for style in (0, 1):
            own = [example for example in tagged if example.style == style]
            lengths = [len(example.ids) for example in own]
            cut = batches(own, lengths, _BATCH_SIZE, self._random)
            plan += [_TagBatch(batch) for batch in cut]
        return [plan[index] for index in self._random.permutation(len(plan))]

    def _step(self, batch: Batch, progress: float) -> tuple[str, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * rate_at(progress)
        kind = batch.kind
        if isinstance(batch, _ReviewBatch):
            loss = self._review_loss(batch.examples)
        else:
            loss = self._tag_loss(batch.examples)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimizer.step()
        self._average()
        return kind, loss.item()

    def _review_loss(self, batch: list[ReviewExample]) -> Tensor:
        ids, shapes, mask = _inputs([e.ids for e in batch], [e.shapes for e in batch])
        hidden = self._network.encode(ids, shapes, mask)
        sentiment, present, polar = self._network.read_review(hidden, mask)
        gold_topics = torch.from_numpy(np.stack([e.topics for e in batch]))
        gold_polar = torch.from_numpy(np.stack([e.polarities for e in batch]))
        said = functional.cross_entropy(
            sentiment,
            torch.tensor([e.sentiment for e in batch]),
            weight=self._weights,
            label_smoothing=_LABEL_SMOOTHING,
        )
        about = functional.binary_cross_entropy_with_logits(present, gold_topics)
        polar_loss = -(gold_polar * polar.log_softmax(-1)).sum() / gold_topics.sum().clamp(min=1)
        return said + _TOPIC_WEIGHT * about + _POLARITY_WEIGHT * polar_loss

    def _tag_loss(self, batch: list[TagExample]) -> Tensor:
        ids, shapes, mask = _inputs([e.ids for e in batch], [self._shapes(e) for e in batch])
        hidden = self._network.encode(ids, shapes, mask)
        logits = self._network.read_tags(hidden, shapes, mask, batch[0].style)
        allowed = torch.from_numpy(pad([e.allowed for e in batch]))
        return _TAG_WEIGHT * partial_label_loss(logits, allowed)

    def _shapes(self, example: TagExample) -> NDArray[np.int64]:
        if self._random.random() >= _FORGET_CASE:
            return example.shapes
        lettered = (example.shapes >= 8) & (example.shapes < 24)
        return np.where(lettered, 4 + example.shapes % 4, example.shapes)

    def _average(self) -> None:
        """Move the average towards the weights; fast at first, when it knows nothing."""
        self._steps += 1
        if self._steps % _AVERAGE_EVERY:
            return
        decay = min(_AVERAGE_DECAY, self._steps / (40 + self._steps))
        theirs: list[Tensor] = [p for p in self._network.parameters() if p.requires_grad]
        pairs = zip(self.averaged.parameters(), self._network.parameters(), strict=True)
        ours: list[Tensor] = [mean for mean, current in pairs if current.requires_grad]
        with torch.no_grad():
            torch._foreach_lerp_(ours, theirs, 1 - decay)


def partial_label_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """-log of the probability of any allowed tag, averaged over tokens that allow some."""
    asked = allowed.any(-1)
    logits, allowed = logits[asked], allowed[asked]
    within = logits.masked_fill(~allowed, -1e4)
    return (logits.logsumexp(-1) - within.logsumexp(-1)).mean()


def rate_at(progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to nothing."""
    if progress < _WARMUP:
        return max(progress, 0.002) / _WARMUP
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARMUP) / (1 - _WARMUP)))


def _optimizer(network: ReviewNetwork) -> torch.optim.AdamW:
    new = {id(p) for p in network.encoder.shapes.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            head = not name.startswith("encoder.") or id(parameter) in new
            groups.setdefault((head, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": _HEAD_RATE if head else _ENCODER_RATE,
                "weight_decay": 0.01 if matrix else 0.0,
            }
            for (head, matrix), parameters in groups.items()
        ],
        lr=_ENCODER_RATE,
        fused=True,
    )


def _inputs(
    ids: Sequence[NDArray[np.int64]],
    shapes: Sequence[NDArray[np.int64]],
) -> tuple[Tensor, Tensor, Tensor]:
    mask = pad([np.ones(len(row), dtype=np.float32) for row in ids])
    return torch.from_numpy(pad(ids)), torch.from_numpy(pad(shapes)), torch.from_numpy(mask)


def _progress(
    epoch: int, index: int, total: int, started: float, losses: dict[str, list[float]]
) -> str:
    means = "  ".join(
        f"{kind} {np.mean(values[-60:]):.3f}" for kind, values in losses.items() if values
    )
    minutes = (time.monotonic() - started) / 60
    return f"epoch {epoch + 1}  batch {index + 1}/{total}  {minutes:.1f} min  {means}"
