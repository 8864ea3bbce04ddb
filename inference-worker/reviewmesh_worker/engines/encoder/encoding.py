"""Tokenizes text for the encoder: ids of pieces, word shapes, and the offsets of each token.

A vocabulary may be uncased, so the letter case of a word, which tells names from other words, is
encoded beside the ids as a small "shape" number. Training and serving share this module, so that
both see the same input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reviewmesh_worker.engines.encoder.config import EncoderForm
from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.tasks.instructions import without_instructions
from reviewmesh_worker.tasks.labels import HeadLabels

Int64Array = NDArray[np.int64]

# Case classes; 0 is for padding and the special tokens.
_LOWER, _TITLE, _UPPER, _INITIAL, _MIXED, _DIGIT, _ALNUM, _PUNCT, _OTHER = range(1, 10)
SHAPE_COUNT: Final = 40

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_BLANK_PIECE: Final = "\u2581"
"""What SentencePiece writes for a blank, alone where no piece begins with one."""
# Thai, Lao, Myanmar, Khmer, kana and Han: written without blanks between words.
_UNSPACED: Final = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f]"
)
# Terminal escapes, then control and format characters: the tokenizer drops these, and a word looks
# the same without.
_UNSEEN: Final = re.compile(
    "\x1b\\[[0-?]{0,16}[ -/]{0,4}[@-~]|"
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd"
    "\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f]"
)


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The tokens of one text, without special tokens; one row per token in every array."""

    ids: Int64Array
    shapes: Int64Array
    starts: Int64Array
    """Code point where the token begins."""
    ends: Int64Array
    words: Int64Array
    """Number of the word that the token is a piece of, ascending."""

    def __len__(self) -> int:
        return len(self.ids)


class TextEncoder:
    """Tokenizes texts of any length, without truncation."""

    def __init__(self, tokenizer_file: Path, labels: HeadLabels, form: EncoderForm) -> None:
        """Raises ValueError where the tokenizer has pieces that the form has no vectors for."""
        self._labels = labels
        self._form = form
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        pieces = self._tokenizer.get_vocab_size()
        if pieces > form.vocabulary:
            raise ValueError(f"expected at most {form.vocabulary} pieces, found {pieces}")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def form(self) -> EncoderForm:
        return self._form

    def encode(self, text: str) -> EncodedText:
        """Leaves out instructions to models and invisible characters; offsets are the text's."""
        seen, places = _seen(text)
        # The tokenizer takes no lone surrogates; the replacement character keeps the offsets.
        whole = without_instructions(_SURROGATES.sub("\ufffd", seen), self._labels)
        encoding = self._tokenizer.encode(whole, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        words = np.array(encoding.word_ids, dtype=np.int64)
        starts, ends = offsets[:, 0], offsets[:, 1]
        if self._form.pieces_are_words:
            words = _words_of_pieces(whole, encoding.tokens, offsets, words)
        return EncodedText(
            ids=np.array(encoding.ids, dtype=np.int64),
            shapes=_token_shapes(whole, starts, ends, words),
            starts=starts if places is None else places[starts],
            ends=ends if places is None else places[ends - 1] + 1,
            words=words,
        )


def _seen(text: str) -> tuple[str, Int64Array | None]:
    """The text without invisible characters, and each character's offset, if any was removed."""
    if _UNSEEN.search(text) is None:
        return text, None
    seen = _UNSEEN.sub("", text)
    gone = [place for match in _UNSEEN.finditer(text) for place in range(*match.span())]
    return seen, np.delete(np.arange(len(text), dtype=np.int64), gone)


def load_encoder(file: Path, labels: HeadLabels, form: EncoderForm) -> TextEncoder:
    """Raises EngineLoadError."""
    try:
        return TextEncoder(file, labels, form)
    # The tokenizers package raises plain Exception for a missing or broken file.
    except Exception as error:
        raise EngineLoadError(f"expected a tokenizer at {file}: {error}") from error


def _words_of_pieces(
    text: str, pieces: Sequence[str], offsets: Int64Array, words: Int64Array
) -> Int64Array:
    """Words where a piece of Thai, Chinese or Japanese is one; a lone blank goes with the next."""
    if not len(words):
        return words
    alone = np.array([_UNSPACED.search(text, *span) is not None for span in offsets.tolist()])
    blank = np.array([piece == _BLANK_PIECE for piece in pieces])
    begins = (words[1:] != words[:-1]) | alone[1:] | alone[:-1]
    return np.cumsum(np.concatenate(([False], begins & ~blank[:-1])), dtype=np.int64)


def word_starts(words: Int64Array) -> NDArray[np.bool_]:
    """Which tokens are the first piece of their word."""
    first = np.ones(len(words), dtype=np.bool_)
    first[1:] = words[1:] != words[:-1]
    return first


def _token_shapes(text: str, starts: Int64Array, ends: Int64Array, words: Int64Array) -> Int64Array:
    """Shape of a token: case class of its whole word, whether a space precedes, whether first
    piece."""
    shapes = np.zeros(len(words), dtype=np.int64)
    first = np.flatnonzero(word_starts(words))
    after = np.append(first, len(words))[1:]
    for begin, end in zip(first.tolist(), after.tolist(), strict=True):
        start = int(starts[begin])
        spaced = start == 0 or text[start - 1].isspace()
        base = case_class(text[start : int(ends[end - 1])]) * 4 + spaced * 2
        shapes[begin:end] = base
        shapes[begin] = base + 1
    return shapes


def case_class(word: str) -> int:
    """One of nine classes of how a word is written."""
    if word.isdigit():
        return _DIGIT
    if not word.isalnum():
        return _PUNCT if word.isascii() else _OTHER
    if not word.isalpha():
        return _ALNUM
    if word.islower():
        return _LOWER
    if word.isupper():
        return _UPPER if len(word) > 1 else _INITIAL
    if word[0].isupper() and word[1:].islower():
        return _TITLE
    return _MIXED if word.upper() != word.lower() else _OTHER
