"""A model from scratch learns to say again what stands before it."""

from __future__ import annotations

import torch
from rich.console import Console
from transformers import Gemma2Config, Gemma2ForCausalLM

from reviewmesh_models.training.causal.copying import learn_to_copy
from reviewmesh_models.training.progress import TrainingProgress

VOCABULARY = 64
RUN = 30


def test_random_tokens_are_said_again() -> None:
    torch.manual_seed(7)
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            query_pre_attn_scalar=16,
            max_position_embeddings=128,
            initializer_range=0.5 * 32**-0.5,
            attn_implementation="eager",
        )
    )
    assert _copied(model) < 0.1
    learn_to_copy(model, (6, VOCABULARY), 1000, 7, TrainingProgress(Console(quiet=True)))
    assert _copied(model) > 0.6


@torch.no_grad()
def _copied(model: Gemma2ForCausalLM) -> float:
    """Share of the tokens of new random runs that are said again as they were."""
    once = torch.randint(6, VOCABULARY, (16, RUN), generator=torch.Generator().manual_seed(3))
    logits = model(input_ids=torch.cat((once, once), 1)).logits
    return (logits[:, RUN:-1].argmax(-1) == once[:, 1:]).float().mean().item()
