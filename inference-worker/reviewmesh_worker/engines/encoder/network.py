"""The encoder and its heads: MiniLM with word shapes, three tasks in one forward pass.

Written in plain torch so that exactly what is trained is exported. Each topic attends to the tokens
with a query of its own, so that its polarity comes from the tokens that mention it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from reviewmesh_worker.engines.encoder.config import EncoderForm
from reviewmesh_worker.engines.encoder.encoding import SHAPE_COUNT
from reviewmesh_worker.tasks.labels import HeadLabels

HIDDEN: Final = 384
ATTENTION_HEADS: Final = 12
INNER: Final = 1536
POSITIONS: Final = 512
NORM_EPSILON: Final = 1e-12
_TAG_HIDDEN: Final = 192
_SHAPE_FEATURES: Final = 24
ANNOTATION_STYLES: Final = 2
"""Guidelines differ between the sources of entities; each has a learned offset in the tag head."""
SERVED_STYLE: Final = 0


class _RowDropout(nn.Module):
    """Drops the same features for all tokens of a text: a draw per token would cost 10 % of a
    step."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def forward(self, states: Tensor) -> Tensor:
        if not self.training:
            return states
        kept = torch.empty(states.shape[0], 1, states.shape[2]).bernoulli_(1 - self._share)
        return states * (kept / (1 - self._share))


class _Layer(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.attended = nn.Linear(HIDDEN, HIDDEN)
        self.attention_norm = nn.LayerNorm(HIDDEN, eps=NORM_EPSILON)
        self.inner = nn.Linear(HIDDEN, INNER)
        self.outer = nn.Linear(INNER, HIDDEN)
        self.output_norm = nn.LayerNorm(HIDDEN, eps=NORM_EPSILON)
        self.dropout = _RowDropout(dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (ATTENTION_HEADS, -1)).transpose(1, 2)
            for part in self.query_key_value(hidden).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended = self.attended(mixed.transpose(1, 2).flatten(2))
        hidden = self.attention_norm(hidden + self.dropout(attended))
        inner = functional.gelu(self.inner(hidden))
        normed: Tensor = self.output_norm(hidden + self.dropout(self.outer(inner)))
        return normed


class Encoder(nn.Module):
    def __init__(self, form: EncoderForm, dropout: float) -> None:
        super().__init__()
        self.form = form
        self.words = nn.Embedding(form.vocabulary, HIDDEN)
        self.positions = nn.Embedding(POSITIONS, HIDDEN)
        self.shapes = nn.Embedding(SHAPE_COUNT, HIDDEN)
        # Zero-initialised, so that training begins with the pretrained encoder's behaviour.
        nn.init.zeros_(self.shapes.weight)
        self.norm = nn.LayerNorm(HIDDEN, eps=NORM_EPSILON)
        self.dropout = _RowDropout(dropout)
        self.layers = nn.ModuleList(_Layer(dropout) for _ in range(form.layers))

    def forward(self, ids: Tensor, shapes: Tensor, mask: Tensor) -> Tensor:
        return self.states(ids, shapes, mask)[-1]

    def states(self, ids: Tensor, shapes: Tensor, mask: Tensor) -> list[Tensor]:
        """The output of each layer, (rows, tokens, features)."""
        positions = self.positions.weight[: ids.shape[1]]
        hidden = self.norm(self.words(ids) + positions + self.shapes(shapes))
        hidden = self.dropout(hidden)
        bias = (1.0 - mask[:, None, None, :]) * -1e4
        states = []
        for layer in self.layers:
            hidden = layer(hidden, bias)
            states.append(hidden)
        return states


class _TopicHead(nn.Module):
    """Logits of presence and polarity for every topic."""

    def __init__(self, labels: HeadLabels, dropout: float) -> None:
        super().__init__()
        topics, polarities = len(labels.topics), len(labels.polarities)
        self.dropout = nn.Dropout(dropout)
        self.queries = nn.Linear(HIDDEN, topics, bias=False)
        nn.init.zeros_(self.queries.weight)
        self.present = nn.Parameter(torch.randn(topics, HIDDEN) * 0.02)
        self.present_overall = nn.Linear(HIDDEN, topics)
        self.polar = nn.Parameter(torch.randn(topics, HIDDEN, polarities) * 0.02)
        self.polar_overall = nn.Linear(HIDDEN, polarities)

    def forward(self, hidden: Tensor, pooled: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        weights = (self.queries(hidden).transpose(1, 2) + bias).softmax(-1)
        views = self.dropout(weights @ hidden)
        present = (views * self.present).sum(-1) + self.present_overall(pooled)
        polar = (views.transpose(0, 1) @ self.polar).transpose(0, 1)
        return present, polar + self.polar_overall(pooled)[:, None, :]


class _TagHead(nn.Module):
    """BIO tags from a token, its two neighbours and their shapes."""

    def __init__(self, labels: HeadLabels, dropout: float) -> None:
        super().__init__()
        self.shapes = nn.Embedding(SHAPE_COUNT, _SHAPE_FEATURES)
        self.styles = nn.Embedding(ANNOTATION_STYLES, _TAG_HIDDEN)
        nn.init.zeros_(self.styles.weight)
        self.neighbours = nn.Linear(3 * (HIDDEN + _SHAPE_FEATURES), _TAG_HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.tags = nn.Linear(_TAG_HIDDEN, len(labels.tags))

    def forward(self, hidden: Tensor, shapes: Tensor, mask: Tensor, style: int) -> Tensor:
        own = torch.cat((hidden, self.shapes(shapes)), -1) * mask[:, :, None]
        before = functional.pad(own, (0, 0, 1, 0))[:, :-1]
        after = functional.pad(own, (0, 0, 0, 1))[:, 1:]
        wide = self.neighbours(self.dropout(torch.cat((before, own, after), -1)))
        tags: Tensor = self.tags(functional.gelu(wide + self.styles.weight[style]))
        return tags


class ReviewHeads(nn.Module):
    """The heads of all tasks, on the encoder's hidden states."""

    def __init__(self, labels: HeadLabels, dropout: float = 0.1) -> None:
        super().__init__()
        sentiments = len(labels.sentiments)
        self.sentiment = nn.Sequential(nn.Dropout(dropout), nn.Linear(HIDDEN, sentiments))
        self.topics = _TopicHead(labels, dropout)
        self.tags = _TagHead(labels, dropout)

    def read_review(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of sentiment, topics and the polarity of each topic."""
        pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        present, polar = self.topics(hidden, pooled, (1.0 - mask[:, None, :]) * -1e4)
        return self.sentiment(pooled), present, polar

    def read_tags(self, hidden: Tensor, shapes: Tensor, mask: Tensor, style: int) -> Tensor:
        tags: Tensor = self.tags(hidden, shapes, mask, style)
        return tags

    def read(self, hidden: Tensor, shapes: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """What is served: (sentiment, topics, polarities, tags) as logits."""
        tags = self.read_tags(hidden, shapes, mask, SERVED_STYLE)
        return (*self.read_review(hidden, mask), tags)


class ReviewNetwork(ReviewHeads):
    """All tasks of one encoder."""

    def __init__(self, labels: HeadLabels, form: EncoderForm, dropout: float = 0.1) -> None:
        # Before the heads: the bundled model's random weights were drawn in this order.
        encoder = Encoder(form, dropout)
        super().__init__(labels, dropout)
        self.encoder = encoder

    def encode(self, ids: Tensor, shapes: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(ids, shapes, mask)
        return hidden

    def forward(self, ids: Tensor, shapes: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """What is served: (sentiment, topics, polarities, tags) as logits."""
        real = mask.to(self.encoder.words.weight.dtype)
        return self.read(self.encode(ids, shapes, real), shapes, real)


def load_pretrained(encoder: Encoder, weights: Mapping[str, Tensor], layers: Sequence[int]) -> None:
    """Fill an encoder from a BERT checkpoint in the Hugging Face naming.

    `layers` are those of the checkpoint that are taken, one for each of the encoder's.
    """
    state = dict(encoder.state_dict())
    state["words.weight"] = weights["embeddings.word_embeddings.weight"]
    # One segment only: its embedding is a constant that every position carries.
    state["positions.weight"] = (
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
        for number, taken in enumerate(layers):
            for ours, theirs in LAYER_NAMES.items():
                state[f"layers.{number}.{ours}.{kind}"] = torch.cat(
                    [weights[f"encoder.layer.{taken}.{name}.{kind}"] for name in theirs]
                )
    encoder.load_state_dict(state)


LAYER_NAMES: Final = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attended": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "inner": ("intermediate.dense",),
    "outer": ("output.dense",),
    "output_norm": ("output.LayerNorm",),
}
