"""The `heads.json` beside the weights: labels of the heads and their calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.tasks.labels import HeadLabels

WEIGHTS_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
HEADS_FILE: Final = "heads.json"
"""Not `config.json`, which is the name of Hugging Face's format."""


@dataclass(frozen=True, slots=True)
class EncoderCalibration:
    """Fitted after training, on rows that are used neither for training nor for scores."""

    sentiment_temperature: float
    sentiment_bias: tuple[float, ...]
    """Added to the logits of the sentiment labels before the temperature divides them."""
    topic_thresholds: tuple[float, ...]
    topic_floor: float
    """Where no topic reaches its threshold, the likeliest is given if its score reaches this."""
    outside_bias: float
    """Subtracted from the logit of the tag O: more recall, less precision."""


def neutral_encoder_calibration(labels: HeadLabels) -> EncoderCalibration:
    return EncoderCalibration(
        sentiment_temperature=1.0,
        sentiment_bias=(0.0,) * len(labels.sentiments),
        topic_thresholds=(0.5,) * len(labels.topics),
        topic_floor=1.0,
        outside_bias=0.0,
    )


@dataclass(frozen=True, slots=True)
class EncoderForm:
    """What differs between the encoders that a model may be fine-tuned from."""

    vocabulary: int
    """Pieces, and so the rows of the word vectors."""
    layers: int
    padding: int
    """Id of the padding; `start` and `end` are those of the special tokens around a window."""
    start: int
    end: int
    pieces_are_words: bool
    """Where a script has no blanks between words, each piece is tagged as a word of its own."""


MINILM: Final = EncoderForm(
    vocabulary=30522, layers=6, padding=0, start=101, end=102, pieces_are_words=False
)
"""Of every package whose settings name no form: once there was no other."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    window: int
    """Tokens of one window, without the two special tokens."""
    stride: int
    """Tokens from the start of one window to the start of the next."""
    labels: HeadLabels
    calibration: EncoderCalibration
    form: EncoderForm = MINILM


def write_config(folder: Path, config: ModelConfig) -> None:
    text = json.dumps(asdict(config), indent=2) + "\n"
    (folder / HEADS_FILE).write_text(text, encoding="utf-8")


def read_config(folder: Path) -> ModelConfig:
    content = _read_json(folder / HEADS_FILE)
    try:
        config = _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineLoadError(
            f"{folder / HEADS_FILE}: expected a model's settings, {error!r}; export the model anew"
        ) from error
    if not 0 < config.stride <= config.window:
        raise EngineLoadError(
            f"{folder / HEADS_FILE}: expected 0 < stride <= window, "
            f"found stride {config.stride}, window {config.window}"
        )
    return config


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineLoadError(
            f"expected a model file at {file}, {error.strerror}; name the folder of a package"
        ) from error
    except ValueError as error:
        raise EngineLoadError(f"{file}: expected JSON, {error}; export the model anew") from error
    if not isinstance(content, dict):
        raise EngineLoadError(f"{file}: expected an object, found {type(content).__name__}")
    return content


def _parse(content: Mapping[str, Any]) -> ModelConfig:
    fitted = content["calibration"]
    named = content["labels"]
    labels = HeadLabels(
        entities=_names(named["entities"]),
        topics=_names(named["topics"]),
        polarities=_names(named["polarities"]),
        sentiments=_names(named["sentiments"]),
    )
    calibration = EncoderCalibration(
        sentiment_temperature=float(fitted["sentiment_temperature"]),
        sentiment_bias=_numbers(fitted["sentiment_bias"], len(labels.sentiments)),
        topic_thresholds=_numbers(fitted["topic_thresholds"], len(labels.topics)),
        topic_floor=float(fitted["topic_floor"]),
        outside_bias=float(fitted["outside_bias"]),
    )
    return ModelConfig(
        window=int(content["window"]),
        stride=int(content["stride"]),
        labels=labels,
        calibration=calibration,
        form=_form(content["form"]) if "form" in content else MINILM,
    )


def _form(content: Mapping[str, Any]) -> EncoderForm:
    form = EncoderForm(
        vocabulary=int(content["vocabulary"]),
        layers=int(content["layers"]),
        padding=int(content["padding"]),
        start=int(content["start"]),
        end=int(content["end"]),
        pieces_are_words=bool(content["pieces_are_words"]),
    )
    if form.layers < 1:
        raise ValueError(f"expected a layer or more, found {form.layers}")
    for special in (form.padding, form.start, form.end):
        if not 0 <= special < form.vocabulary:
            raise ValueError(
                f"expected special ids below the vocabulary of {form.vocabulary}, found {special}"
            )
    return form


def _names(values: Any) -> tuple[str, ...]:
    if not values:
        raise ValueError("expected the labels of a head, found none")
    return tuple(str(value) for value in values)


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    if len(values) != count:
        raise ValueError(f"expected {count} numbers, found {len(values)}")
    return tuple(float(value) for value in values)
