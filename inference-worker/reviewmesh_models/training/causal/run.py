"""A whole training of a chat model, from rows to the files of a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
)
from transformers.utils import logging

from reviewmesh_models.training.causal.calibrate import calibrate
from reviewmesh_models.training.causal.copying import learn_to_copy
from reviewmesh_models.training.causal.packs import Pack, make_packs
from reviewmesh_models.training.causal.trainer import newest_checkpoint, train_model
from reviewmesh_models.training.causal.vocabulary import make_tokenizer
from reviewmesh_models.training.config import CausalConfig, ConfigError, Scratch
from reviewmesh_models.training.curves import Curves
from reviewmesh_models.training.progress import TrainingProgress
from reviewmesh_models.training.rows import LabelledData
from reviewmesh_worker.tasks.chat import ChatPrompts
from reviewmesh_worker.tasks.definition import Task

_ATTENTION: Final = "eager"
"""Adds the packs' masks as they are, and caps its scores where the model does (Gemma-2)."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a training begins with."""

    model: Any
    tokenizer: Any
    prompts: Mapping[str, ChatPrompts]


def train_causal(
    config: CausalConfig,
    tasks: Mapping[str, Task],
    data: LabelledData,
    checkpoints: Path,
    package: Path,
    progress: TrainingProgress,
) -> Curves:
    """Writes weights, tokenizer and calibration into `package`."""
    # Otherwise each file that is read or written has a progress bar of its own.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(config.seed)
    begun = begin(config, tasks, data)
    random = np.random.default_rng(config.seed)
    packs: list[Pack] = []
    held_out: list[Pack] = []
    for name, prompts in begun.prompts.items():
        packs += make_packs(prompts, data.of(name).learn, random)
        held_out += make_packs(prompts, data.of(name).held_out, random)
    scratch = config.scratch
    if scratch is not None and newest_checkpoint(checkpoints) is None:
        ordinary = len(begun.tokenizer.all_special_ids), len(begun.tokenizer)
        learn_to_copy(
            begun.model, ordinary, steps=scratch.copying_steps, seed=config.seed, progress=progress
        )
    progress.say(f"{len(packs)} packs of reviews to learn from, {len(held_out)} held out")
    trained, curves = train_model(
        begun.model,
        begun.tokenizer,
        config=config,
        packs=packs,
        held_out=held_out,
        checkpoints=checkpoints,
        progress=progress,
    )
    progress.say("fitting temperatures and thresholds on held-out reviews")
    fitted = calibrate(trained, begun.prompts, data.reviews.held_out)
    save(trained, begun, config, package)
    fitted.write(package)
    return curves


def begin(config: CausalConfig, tasks: Mapping[str, Task], data: LabelledData) -> Begun:
    """The base or a model with random weights, and the prompts in its tokens."""
    if config.base is None:
        assert config.scratch is not None  # The config has one of the two.
        numbers = config.scratch
        texts = [row["text"] for row in (*data.reviews.learn, *data.entities.learn)]
        tokenizer = make_tokenizer(tasks, texts, numbers.vocabulary)
        model = from_scratch(numbers, config.context, tokenizer)
    else:
        folder = config.base.folder
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        # An adapter is small beside its base; weights that are trained themselves need every bit.
        dtype = config.dtype if config.method == "lora" else "float32"
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=_ATTENTION, local_files_only=True
        )
        _check_window(model.config, config.context)
    prompts = {name: ChatPrompts(tokenizer, task, config.context) for name, task in tasks.items()}
    return Begun(model, tokenizer, prompts)


def save(model: Any, begun: Begun, config: CausalConfig, folder: Path) -> None:
    """Standard Hugging Face form; the model's turn ends its text."""
    ends = {prompts.end for prompts in begun.prompts.values()}
    model.generation_config = GenerationConfig(
        bos_token_id=begun.tokenizer.bos_token_id,
        pad_token_id=begun.tokenizer.pad_token_id,
        eos_token_id=sorted({begun.tokenizer.eos_token_id, *ends}),
    )
    model.to(getattr(torch, config.dtype)).save_pretrained(folder)
    begun.tokenizer.save_pretrained(folder)


def from_scratch(numbers: Scratch, context: int, tokenizer: Any) -> Any:
    """A Gemma-2 with random weights, which sees `context` tokens at once."""
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=numbers.hidden,
            intermediate_size=numbers.inner,
            num_hidden_layers=numbers.layers,
            num_attention_heads=numbers.heads,
            num_key_value_heads=numbers.key_value_heads,
            head_dim=numbers.head,
            query_pre_attn_scalar=numbers.head,
            initializer_range=numbers.initializer,
            max_position_embeddings=context,
            sliding_window=context,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            attn_implementation=_ATTENTION,
        )
    )


def _check_window(base: Any, context: int) -> None:
    window = getattr(base, "sliding_window", None)
    longest = min(base.max_position_embeddings, window or base.max_position_embeddings)
    if context > longest:
        raise ConfigError(
            f"context: expected at most {longest} tokens, which the base sees at once, "
            f"found {context}"
        )
