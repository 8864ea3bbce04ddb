"""The numbers of a chat model, from a GGUF file's metadata to Hugging Face's `config.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from reviewmesh_models.training.gguf_base.reading import GgufContent, GgufError

LLAMA: Final = "llama"
QWEN2: Final = "qwen2"
_CLASSES: Final = {LLAMA: "LlamaForCausalLM", QWEN2: "Qwen2ForCausalLM"}
_MOST_LAYERS: Final = 1024

_COUNTS: Final = {
    "context": "context_length",
    "hidden": "embedding_length",
    "inner": "feed_forward_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "key_value_heads": "attention.head_count_kv",
}
_EPSILON: Final = "attention.layer_norm_rms_epsilon"
_ROPE_BASE: Final = "rope.freq_base"
_VOCABULARY: Final = "vocab_size"
_OF_ONE_HEAD: Final = ("rope.dimension_count", "attention.key_length", "attention.value_length")
_KNOWN: Final = {*_COUNTS.values(), _EPSILON, _ROPE_BASE, _VOCABULARY, *_OF_ONE_HEAD}


@dataclass(frozen=True, slots=True)
class ChatForm:
    """What decides the shapes of the weights, and what is computed with them."""

    architecture: str
    vocabulary: int
    context: int
    hidden: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    epsilon: float
    rope_base: float

    @property
    def head(self) -> int:
        """Features of one head."""
        return self.hidden // self.heads


def read_form(content: GgufContent) -> ChatForm:
    """Raises GgufError, also for a number that is not understood: it would change answers."""
    architecture = content.one("general.architecture", str)
    if architecture not in _CLASSES:
        raise GgufError(
            f"expected the architecture {' or '.join(_CLASSES)}, found {architecture[:80]!r}"
        )
    prefix = f"{architecture}."
    told = {key.removeprefix(prefix) for key in content.values if key.startswith(prefix)}
    if unknown := sorted(told - _KNOWN):
        raise GgufError(
            f"expected a plain {architecture}, found metadata that is not understood: "
            f"{', '.join(unknown)[:200]}"
        )
    form = ChatForm(
        architecture=architecture,
        vocabulary=len(content.several("tokenizer.ggml.tokens", str)),
        epsilon=_positive(content, f"{prefix}{_EPSILON}"),
        rope_base=_positive(content, f"{prefix}{_ROPE_BASE}"),
        **{name: _count(content, f"{prefix}{key}") for name, key in _COUNTS.items()},
    )
    _check(content, prefix, form)
    return form


def config_of(form: ChatForm, *, tied: bool, start: int | None, end: int) -> dict[str, Any]:
    """`config.json`; `tied` where the embedding is also the last layer."""
    return {
        "architectures": [_CLASSES[form.architecture]],
        "model_type": form.architecture,
        "vocab_size": form.vocabulary,
        "max_position_embeddings": form.context,
        "hidden_size": form.hidden,
        "intermediate_size": form.inner,
        "num_hidden_layers": form.layers,
        "num_attention_heads": form.heads,
        "num_key_value_heads": form.key_value_heads,
        "head_dim": form.head,
        "hidden_act": "silu",
        "rms_norm_eps": form.epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": form.rope_base},
        "tie_word_embeddings": tied,
        "dtype": "float16",
        "bos_token_id": start,
        "eos_token_id": end,
    }


def _check(content: GgufContent, prefix: str, form: ChatForm) -> None:
    if form.layers > _MOST_LAYERS:
        raise GgufError(f"expected at most {_MOST_LAYERS:,} layers, found {form.layers:,}")
    if form.hidden % form.heads or form.head % 2 or form.heads % form.key_value_heads:
        raise GgufError(
            f"expected {form.hidden} features in whole heads of an even size, and heads in groups "
            f"of one size, found {form.heads} heads and {form.key_value_heads} of keys"
        )
    expected = {key: form.head for key in _OF_ONE_HEAD} | {_VOCABULARY: form.vocabulary}
    for key, value in expected.items():
        found = content.optional(f"{prefix}{key}", int)
        if found not in (None, value):
            raise GgufError(f"expected {prefix}{key} of {value:,}, found {found:,}")


def _count(content: GgufContent, key: str) -> int:
    value = content.one(key, int)
    if value < 1:
        raise GgufError(f"expected {key} of 1 or more, found {value}")
    return value


def _positive(content: GgufContent, key: str) -> float:
    value = content.one(key, float)
    if not (math.isfinite(value) and value > 0):
        raise GgufError(f"expected {key} above 0, found {value}")
    return value
