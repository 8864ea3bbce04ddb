"""The training loop: review batches and entity batches in turn, one optimizer, averaged weights.

A checkpoint has the whole state: a resumed training makes exactly the steps that an uninterrupted
one would have made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reviewmesh_models.training.config import EncoderConfig
from reviewmesh_models.training.curves import Curves
from reviewmesh_models.training.encoder.checkpoint import write_checkpoint
from reviewmesh_models.training.encoder.dataset import ReviewExample, TagExample, batches, pad
from reviewmesh_models.training.encoder.inputs import inputs_of
from reviewmesh_models.training.encoder.schedule import mixed_precision, rate_at
from reviewmesh_models.training.progress import TrainingProgress
from reviewmesh_worker.engines.encoder.network import ReviewNetwork

CHECKPOINT_FILE: Final = "checkpoint.pt"
_CURVE_POINT_EVERY: Final = 20
_AVERAGE_EVERY: Final = 4
_AVERAGE_DECAY: Final = 0.98
"""Per averaging, so the average looks back some 200 steps."""
_TOPIC_WEIGHT: Final = 3.0
_POLARITY_WEIGHT: Final = 0.5
_TAG_WEIGHT: Final = 1.0
# positive, negative, neutral, mixed: the rare ones weigh more, or they would never be predicted.
_SENTIMENT_WEIGHTS: Final = (0.9, 1.0, 1.7, 2.0)
_LABEL_SMOOTHING: Final = 0.03
_SMOOTHING_OF_TRANSLATIONS: Final = 0.12
"""Their label is that of the English sentence, and a translation may lose what it rests on."""
_FIRST_SHARE: Final = 1.6
_LAST_SHARE: Final = 0.4
"""Rows in other languages that are drawn, as a part of what the config says: the first epochs see
more of them, the last ones fewer, so that the weights that are kept fit labels of English best."""
_FORGET_CASE: Final = 0.1
"""Share of entity rows that are lower-cased."""
_SHARE_OF_SECOND_STYLE: Final = 0.4
"""Share of the Broad Twitter Corpus that an epoch sees: it is large and far from reviews."""


@dataclass(frozen=True, slots=True)
class _ReviewBatch:
    examples: list[ReviewExample]


@dataclass(frozen=True, slots=True)
class _TagBatch:
    """Examples of one annotation style."""

    examples: list[TagExample]


Batch = _ReviewBatch | _TagBatch
_KINDS: Final = {_ReviewBatch: "reviews", _TagBatch: "entities"}


class Trainer:
    """Trains a network in place; `averaged` is the one to keep."""

    def __init__(
        self,
        network: ReviewNetwork,
        reviews: Sequence[ReviewExample],
        tagged: Sequence[TagExample],
        config: EncoderConfig,
        progress: TrainingProgress,
    ) -> None:
        self.averaged = copy.deepcopy(network).requires_grad_(False)
        self._network = network
        self._reviews = reviews
        self._tagged = tagged
        self._config = config
        self._progress = progress
        self._random = np.random.default_rng(config.seed)
        self._weights = torch.tensor(_SENTIMENT_WEIGHTS)
        # Rare words would move far on few examples; the pretrained word vectors stay as they are.
        network.encoder.words.requires_grad_(False)
        self._optimizer = _optimizer(network, config)
        self._steps = 0
        self._epoch = 0
        self._done_in_epoch = 0
        self._before_epoch: Mapping[str, Any] = {}
        self._losses: dict[str, list[tuple[int, float]]] = {k: [] for k in _KINDS.values()}

    def run(self, checkpoints: Path) -> Curves:
        """Train to the end, from the checkpoint in the folder where there is one."""
        torch.manual_seed(self._config.seed)
        file = checkpoints / CHECKPOINT_FILE
        plan = self._restore(file) if file.is_file() else self._plan_epoch()
        # Epochs differ by a batch or so; the bar takes the first one's length for all of them.
        self._progress.begin("training", len(plan) * self._config.epochs, self._steps)
        while self._epoch < self._config.epochs:
            self._network.train()
            for index in range(self._done_in_epoch, len(plan)):
                self._step(plan[index], (self._epoch + index / len(plan)) / self._config.epochs)
                self._done_in_epoch = index + 1
                if self._steps % self._config.checkpoint_steps == 0:
                    self._save(file)
            self._epoch, self._done_in_epoch = self._epoch + 1, 0
            plan = self._plan_epoch()
        return Curves({kind: _means(points) for kind, points in self._losses.items()})

    def _save(self, file: Path) -> None:
        state = {
            "network": self._network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self._steps,
            "epoch": self._epoch,
            "done_in_epoch": self._done_in_epoch,
            "before_epoch": self._before_epoch,
            "random": self._random.bit_generator.state,
            "torch_random": torch.get_rng_state(),
            "losses": self._losses,
        }
        write_checkpoint(file, state)

    def _restore(self, file: Path) -> list[Batch]:
        """What is left and what is done of the epoch that was interrupted."""
        state = torch.load(file, weights_only=True)
        self._network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps, self._epoch = state["steps"], state["epoch"]
        self._done_in_epoch, self._losses = state["done_in_epoch"], state["losses"]
        self._random.bit_generator.state = state["before_epoch"]
        plan = self._plan_epoch()
        self._random.bit_generator.state = state["random"]
        torch.set_rng_state(state["torch_random"])
        return plan

    def _plan_epoch(self) -> list[Batch]:
        self._before_epoch = self._random.bit_generator.state
        size = self._config.batch_size
        tagged = [
            example for example in self._tagged if self._is_seen(self._share_of_tagged(example))
        ]
        reviews = [
            example for example in self._reviews if self._is_seen(self._share_of_review(example))
        ]
        plan: list[Batch] = []
        lengths = [len(example.ids) for example in reviews]
        plan += [_ReviewBatch(batch) for batch in batches(reviews, lengths, size, self._random)]
        for style in (0, 1):
            own = [example for example in tagged if example.style == style]
            lengths = [len(example.ids) for example in own]
            cut = batches(own, lengths, size, self._random)
            plan += [_TagBatch(batch) for batch in cut]
        return [plan[index] for index in self._random.permutation(len(plan))]

    def _is_seen(self, share: float) -> bool:
        """Draws only where there is something to draw: the bundled model's rows were drawn so."""
        return share >= 1 or self._random.random() < share

    def _share_of_tagged(self, example: TagExample) -> float:
        if example.style:
            return _SHARE_OF_SECOND_STYLE
        languages = self._config.languages
        return languages.entities_share * self._fading() if languages and example.foreign else 1.0

    def _share_of_review(self, example: ReviewExample) -> float:
        languages = self._config.languages
        return languages.reviews_share * self._fading() if languages and example.translated else 1.0

    def _fading(self) -> float:
        done = min(self._epoch / max(self._config.epochs - 1, 1), 1)
        return _FIRST_SHARE + (_LAST_SHARE - _FIRST_SHARE) * done

    def _step(self, batch: Batch, done: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * rate_at(done)
        if isinstance(batch, _ReviewBatch):
            loss = self._review_loss(batch.examples)
        else:
            loss = self._tag_loss(batch.examples)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimizer.step()
        self._average()
        self._losses[_KINDS[type(batch)]].append((self._steps, loss.item()))
        self._progress.step(self._steps, loss.item())

    def _review_loss(self, batch: list[ReviewExample]) -> Tensor:
        ids, shapes, mask = inputs_of([e.ids for e in batch], [e.shapes for e in batch])
        hidden = self._encode(ids, shapes, mask)
        sentiment, present, polar = self._network.read_review(hidden, mask)
        gold_topics = torch.from_numpy(np.stack([e.topics for e in batch]))
        gold_polar = torch.from_numpy(np.stack([e.polarities for e in batch]))
        sentiment_loss = self._sentiment_loss(sentiment, batch)
        about = functional.binary_cross_entropy_with_logits(present, gold_topics)
        polar_loss = -(gold_polar * polar.log_softmax(-1)).sum() / gold_topics.sum().clamp(min=1)
        return sentiment_loss + _TOPIC_WEIGHT * about + _POLARITY_WEIGHT * polar_loss

    def _sentiment_loss(self, logits: Tensor, batch: list[ReviewExample]) -> Tensor:
        """Cross entropy, weighted by label and smoothed by the kind of the row."""
        gold = torch.tensor([e.sentiment for e in batch])
        smoothing = torch.tensor(
            [_SMOOTHING_OF_TRANSLATIONS if e.translated else _LABEL_SMOOTHING for e in batch]
        )
        losses = -logits.log_softmax(-1) * self._weights
        right = losses.gather(1, gold[:, None])[:, 0]
        smoothed = (1 - smoothing) * right + smoothing * losses.mean(-1)
        return smoothed.sum() / self._weights[gold].sum()

    def _encode(self, ids: Tensor, shapes: Tensor, mask: Tensor) -> Tensor:
        with mixed_precision(self._config):
            return self._network.encode(ids, shapes, mask).float()

    def _tag_loss(self, batch: list[TagExample]) -> Tensor:
        ids, shapes, mask = inputs_of([e.ids for e in batch], [self._shapes(e) for e in batch])
        hidden = self._encode(ids, shapes, mask)
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


def _optimizer(network: ReviewNetwork, config: EncoderConfig) -> torch.optim.AdamW:
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
                "peak": config.head_learning_rate if head else config.learning_rate,
                "weight_decay": 0.01 if matrix else 0.0,
            }
            for (head, matrix), parameters in groups.items()
        ],
        lr=config.learning_rate,
        fused=True,
    )


def _means(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """A point for every few steps: single batches differ more than the curve moves."""
    cut = [points[at : at + _CURVE_POINT_EVERY] for at in range(0, len(points), _CURVE_POINT_EVERY)]
    return [(some[-1][0], float(np.mean([loss for _, loss in some]))) for some in cut]
