"""A small tokenizer of word pieces in lower case, as that of MiniLM is."""

from __future__ import annotations

import string
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [
    "ana",
    "and",
    "anna",
    "app",
    "bad",
    "fanta",
    "from",
    "good",
    "hi",
    "in",
    "is",
    "late",
    "likes",
    "lisbon",
    "new",
    "nice",
    "now",
    "paris",
    "plain",
    "rocks",
    "slow",
    "unbelievably",
    "was",
    "word",
    "words",
    "york",
]


def write_wordpieces(file: Path) -> Path:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [*SPECIALS, *WORDS, *letters, *(f"##{letter}" for letter in letters), "##slow"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(file))
    return file
