"""What a trained package says, by plain transformers, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reviewmesh_models.evaluation.scores import entity_parts, hits, micro_f1, share, topic_parts
from reviewmesh_models.training.causal.scoring import word_logprobs
from reviewmesh_worker.engines.interface import Entity, NerOutput, Topic, TopicOutput
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.answers import read_spans
from reviewmesh_worker.tasks.calibration import read_calibration
from reviewmesh_worker.tasks.chat import ChatPrompts
from reviewmesh_worker.tasks.definition import Task

_AT_ONCE = 16


@dataclass
class Package:
    model: Any
    tokenizer: Any
    prompts: dict[str, ChatPrompts]
    folder: Path


def load(folder: Path, tasks: dict[str, Task]) -> Package:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation="eager", local_files_only=True
    ).eval()
    context = model.config.max_position_embeddings
    prompts = {name: ChatPrompts(tokenizer, task, context) for name, task in tasks.items()}
    return Package(model, tokenizer, prompts, folder)


def sentiment_accuracy(package: Package, rows: Sequence[dict[str, Any]]) -> float:
    prompts = package.prompts[SENTIMENT]
    calibration = _calibration(package)
    said = []
    for scores in word_logprobs(package.model, prompts, [row["text"] for row in rows])[:, 0]:
        calibrated = calibration.sentiment_scores(dict(zip(prompts.words, scores, strict=True)))
        said.append(max(calibrated, key=lambda label: calibrated[label]))
    return share(hits([row["sentiment"] for row in rows], said)).value


def topic_f1(package: Package, rows: Sequence[dict[str, Any]]) -> float:
    prompts = package.prompts[TOPIC]
    calibration = _calibration(package)
    outputs = []
    for answer in word_logprobs(package.model, prompts, [row["text"] for row in rows]):
        topics = []
        for label, scores in zip(prompts.task.label_ids, answer, strict=True):
            score, polarity = calibration.topic_score(dict(zip(prompts.words, scores, strict=True)))
            if score >= calibration.topic_thresholds[label]:
                topics.append(Topic(label, score, polarity))
        outputs.append(TopicOutput(tuple(topics)))
    return micro_f1(topic_parts(rows, outputs, prompts.task.label_ids)).value


def entity_f1(package: Package, rows: Sequence[dict[str, Any]]) -> float:
    outputs = [
        NerOutput(tuple(_entities(package, row["text"], answer)))
        for row, answer in zip(rows, _written(package, rows), strict=True)
    ]
    return micro_f1(entity_parts(rows, outputs, package.prompts[NER].task.label_ids)).value


def _calibration(package: Package) -> Any:
    labels = [
        package.prompts[task].task.label_ids if task in package.prompts else ()
        for task in (SENTIMENT, TOPIC)
    ]
    return read_calibration(package.folder, *labels)


def _entities(package: Package, text: str, answer: str) -> list[Entity]:
    task = package.prompts[NER].task
    try:
        spans = read_spans(task, answer, text)
    except ValueError:
        return []
    return [Entity(s.start, s.end, text[s.start : s.end], s.label, 1.0) for s in spans]


@torch.no_grad()
def _written(package: Package, rows: Sequence[dict[str, Any]]) -> list[str]:
    prompts = package.prompts[NER]
    tokenizer = package.tokenizer
    encoded = prompts.prompts([row["text"] for row in rows])
    order = np.argsort([len(ids) for ids in encoded], kind="stable").tolist()
    answers = [""] * len(rows)
    for at in range(0, len(order), _AT_ONCE):
        some = order[at : at + _AT_ONCE]
        batch = tokenizer.pad({"input_ids": [encoded[i] for i in some]}, return_tensors="pt")
        ids = package.model.generate(
            **batch, do_sample=False, max_new_tokens=prompts.answer_tokens, eos_token_id=prompts.end
        )
        new = ids[:, batch["input_ids"].shape[1] :]
        for index, answer in zip(some, new, strict=True):
            answers[index] = tokenizer.decode(answer, skip_special_tokens=True).strip()
    return answers
