"""The tokenizer of a chat model, from a GGUF file's lists to Hugging Face's `tokenizer.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from reviewmesh_models.training.gguf_base.reading import GgufContent, GgufError

_BYTE_PAIRS: Final = "gpt2"
"""What GGUF calls byte-level BPE."""
_SMOLLM: Final = "smollm"
_QWEN2: Final = "qwen2"
_QWEN2_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
"""Types of tokens."""


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    tokenizer: Tokenizer
    settings: dict[str, Any]
    """Of `tokenizer_config.json`, with the chat template."""
    start: int | None
    end: int


def read_tokenizer(content: GgufContent) -> ChatTokenizer:
    """Raises GgufError."""
    model = content.one("tokenizer.ggml.model", str)
    if model != _BYTE_PAIRS:
        raise GgufError(f"expected a tokenizer of byte-level BPE (gpt2), found {model[:80]!r}")
    for key in ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"):
        if content.optional(key, bool):
            raise GgufError(f"expected a tokenizer that adds no tokens of its own, found {key}")
    template = content.one("tokenizer.chat_template", str)
    tokens = content.several("tokenizer.ggml.tokens", str)
    tokenizer = Tokenizer(_byte_pairs(content, tokens))
    _set_splitting(tokenizer, content.one("tokenizer.ggml.pre", str))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(_whole_tokens(content, tokens))
    end = _id(content, "eos", tokens)
    if end is None:
        raise GgufError("expected tokenizer.ggml.eos_token_id in the metadata, found none")
    start, padding = _id(content, "bos", tokens), _id(content, "padding", tokens)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template,
        "bos_token": None if start is None else tokens[start],
        "eos_token": tokens[end],
        "pad_token": tokens[end if padding is None else padding],
        "clean_up_tokenization_spaces": False,
    }
    return ChatTokenizer(tokenizer, settings, start, end)


def _byte_pairs(content: GgufContent, tokens: list[str]) -> models.BPE:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise GgufError("expected each of tokenizer.ggml.tokens once, found some twice")
    merges: list[tuple[str, str]] = []
    for line in content.several("tokenizer.ggml.merges", str):
        first, _, second = line.partition(" ")
        if not {first, second, first + second} <= vocabulary.keys():
            raise GgufError(
                "expected each of tokenizer.ggml.merges to join two tokens to a third, found "
                f"{line[:80]!r}"
            )
        merges.append((first, second))
    return models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False)


def _set_splitting(tokenizer: Tokenizer, name: str) -> None:
    """Where words end before pairs are merged, as llama.cpp and Hugging Face have it."""
    if name == _SMOLLM:
        first: Any = pre_tokenizers.Digits(individual_digits=True)
        second = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    elif name == _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
        first = pre_tokenizers.Split(Regex(_QWEN2_WORDS), "isolated")
        second = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        raise GgufError(f"expected tokenizer.ggml.pre of smollm or qwen2, found {name[:80]!r}")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, second])


def _whole_tokens(content: GgufContent, tokens: list[str]) -> list[AddedToken]:
    """Those that are found in a text before it is split."""
    types = content.several("tokenizer.ggml.token_type", int)
    if len(types) != len(tokens) or set(types) - {_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED}:
        raise GgufError(
            f"expected tokenizer.ggml.token_type to say of each of {len(tokens):,} tokens that it "
            "is normal, control, user-defined or unused (1, 3, 4, 5), found "
            f"{len(types):,} of {sorted(set(types))[:10]}"
        )
    return [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def _id(content: GgufContent, name: str, tokens: list[str]) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    number = content.optional(key, int)
    if number is not None and not 0 <= number < len(tokens):
        raise GgufError(f"expected {key} below {len(tokens):,}, found {number:,}")
    return number
