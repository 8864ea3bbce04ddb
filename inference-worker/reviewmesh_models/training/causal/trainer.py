"""The training of a chat model, by TRL: whole, or a LoRA adapter that is merged at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn import functional
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from reviewmesh_models.training.causal.packs import NOT_LEARNED, Pack, collate
from reviewmesh_models.training.config import CausalConfig, Lora
from reviewmesh_models.training.curves import Curves
from reviewmesh_models.training.progress import TrainingProgress

_WARMUP: Final = 0.05
_BETA2: Final = 0.98
"""Gradients of packs are noisy, and of three tasks in turn: a shorter memory follows them."""
_LOG_AT_MOST_EVERY: Final = 10
_KEPT_CHECKPOINTS: Final = 2
"""The newest may be incomplete when the process is killed."""
_LEARNED: Final = "loss"
_HELD_OUT: Final = "eval_loss"


class PackTrainer(SFTTrainer):
    """TRL's trainer over packs: the loss is of the answers' tokens alone."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Sum over the answers' tokens of this pack by the number of those of the whole step."""
        labels = inputs.pop("labels")[0, 1:]
        learned = (labels != NOT_LEARNED).nonzero().squeeze(-1)
        # Logits of the answers only: those of a large vocabulary are most of a small model's work.
        outputs = model(**inputs, use_cache=False, logits_to_keep=learned)
        loss = functional.cross_entropy(outputs.logits[0].float(), labels[learned], reduction="sum")
        loss = loss / (len(learned) if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


class _Watch(TrainerCallback):
    """Shows each optimizer step."""

    def __init__(self, progress: TrainingProgress) -> None:
        self._progress = progress
        self._loss = math.nan

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.begin("training", state.max_steps, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._loss = kwargs["logs"].get(_LEARNED, self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.step(state.global_step, self._loss)


def train_model(
    model: Any,
    tokenizer: Any,
    config: CausalConfig,
    packs: Sequence[Pack],
    held_out: Sequence[Pack],
    checkpoints: Path,
    progress: TrainingProgress,
) -> tuple[Any, Curves]:
    """The trained model, with any adapter merged, and its loss per step.

    Resumes from the newest complete checkpoint in `checkpoints`, at the same step and with the same
    order of rows as without the interruption.
    """
    trainer = PackTrainer(
        model=model,
        args=_arguments(config, checkpoints),
        data_collator=collate,
        train_dataset=Dataset.from_list(list(packs)),
        eval_dataset=Dataset.from_list(list(held_out)),
        processing_class=tokenizer,
        peft_config=_adapter(config.lora) if config.lora is not None else None,
        callbacks=[_Watch(progress)],
    )
    # The progress bar shows it; this callback would print each log as well.
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=newest_checkpoint(checkpoints))
    curves = read_curves(trainer.state.log_history)
    trained = trainer.model
    if config.lora is not None:
        trained = trained.merge_and_unload()
    return trained.eval(), curves


def newest_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; its state file is written last."""
    whole = [found for found in folder.glob("checkpoint-*") if _is_whole(found)]
    newest = max(whole, key=lambda found: int(found.name.partition("-")[2]), default=None)
    return None if newest is None else str(newest)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def read_curves(history: Sequence[Mapping[str, Any]]) -> Curves:
    return Curves(
        {
            name: [(int(entry["step"]), float(entry[key])) for entry in history if key in entry]
            for name, key in (("learned rows", _LEARNED), ("held-out rows", _HELD_OUT))
        }
    )


def _arguments(config: CausalConfig, checkpoints: Path) -> SFTConfig:
    on_gpu = torch.cuda.is_available()
    every = config.checkpoint_steps
    return SFTConfig(
        output_dir=str(checkpoints),
        seed=config.seed,
        data_seed=config.seed,
        num_train_epochs=config.epochs,
        # One pack at a time: no padding, whatever their lengths.
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=config.packs_per_step,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=_WARMUP,
        weight_decay=0.01,
        adam_beta2=_BETA2,
        max_grad_norm=1.0,
        bf16=config.dtype == "bfloat16" and on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=config.gradient_checkpointing,
        save_steps=every,
        save_total_limit=_KEPT_CHECKPOINTS,
        eval_strategy="epoch",
        # A divisor: what was logged since a checkpoint is not in it.
        logging_steps=next(n for n in range(_LOG_AT_MOST_EVERY, 0, -1) if every % n == 0),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )


def _adapter(lora: Lora) -> LoraConfig:
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
