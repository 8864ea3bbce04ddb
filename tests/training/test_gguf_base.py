"""A model of Hugging Face's, written as GGUF and made a base again, is the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from reviewmesh_models.training.config import BaseWeights, GgufSource
from reviewmesh_models.training.gguf_base.convert import convert_base
from tests.gguf_files import (
    HEADS,
    HIDDEN,
    INNER,
    KEY_VALUE_HEADS,
    LAYERS,
    TOKENS,
    metadata,
    write_gguf,
)

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TEXTS = (
    "the none",
    "  Two  spaces, a\ttab,\r\na line; 12345 of 3 things!\n\n",
    "Größe, naïve, 東京, हिन्दी, 🎉👍🏽",
    "<|start|>user\nthe<|end|>\n",
)


def _model(architecture: str) -> Any:
    """With random weights in the range of float16, all of them away from 0 and 1."""
    numbers = {
        "vocab_size": len(TOKENS),
        "max_position_embeddings": 512,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
        "tie_word_embeddings": True,
    }
    torch.manual_seed(5)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**numbers))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**numbers))
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn_like(weights).mul(0.2).half())
    return model.eval()


def _as_gguf(architecture: str, model: Any) -> dict[str, NDArray[np.float32]]:
    """What llama.cpp's own converter (`convert_hf_to_gguf.py`) writes."""
    out = {}
    for name, weights in model.named_parameters():
        value = weights.detach().numpy()
        if architecture == "llama" and "q_proj" in name:
            value = _pairs_together(value, HEADS)
        if architecture == "llama" and "k_proj" in name:
            value = _pairs_together(value, KEY_VALUE_HEADS)
        for theirs, gguf in NAMES.items():
            name = name.replace(theirs, gguf)
        out[name] = value
    return out


def _pairs_together(value: NDArray[Any], heads: int) -> NDArray[Any]:
    halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))


def _base(folder: Path, architecture: str, model: Any) -> Path:
    file = write_gguf(
        folder / "model.gguf", architecture, _as_gguf(architecture, model), metadata(architecture)
    )
    source = GgufSource(file=file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    base = BaseWeights(folder=folder / "base", name="tiny", source="a test", license="MIT")
    convert_base(base, source)
    return base.folder


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_it_answers_as_the_model_that_was_written(tmp_path: Path, architecture: str) -> None:
    model = _model(architecture)
    folder = _base(tmp_path, architecture, model)
    again = AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", local_files_only=True
    ).eval()
    ids = torch.randint(len(TOKENS), (2, 300), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(ids).logits, again(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1  # Not all alike, whatever the weights are.
    assert again.config.eos_token_id == TOKENS.index("<|end|>")


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_its_tokenizer_gives_texts_back(tmp_path: Path, architecture: str) -> None:
    folder = _base(tmp_path, architecture, _model(architecture))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    turns = [{"role": "user", "content": "the none"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == "<|start|>user\nthe none<|end|>\n<|start|>assistant\n"
    ids = tokenizer(asked)["input_ids"]
    # No token before it, and each mark of a turn is one.
    assert [tokenizer.convert_ids_to_tokens(ids)[at] for at in (0, -11)] == ["<|start|>"] * 2
    assert tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) == "<|end|>"

    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved", local_files_only=True)
    assert [saved(text)["input_ids"] for text in TEXTS] == [
        tokenizer(text)["input_ids"] for text in TEXTS
    ]
