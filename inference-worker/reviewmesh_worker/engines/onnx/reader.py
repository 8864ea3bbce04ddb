"""The model as a function: texts in, all heads' logits out, whatever the length of a text.

A text longer than the window is read in overlapping windows, and its tokens' tags are put together
again before anything is decided, so that a window's edge never cuts an entity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from reviewmesh_worker.engines.interface import (
    EngineLoadError,
    EngineMemoryError,
    NerOutput,
    SentimentOutput,
    TopicOutput,
)
from reviewmesh_worker.engines.onnx.config import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Calibration,
    read_config,
)
from reviewmesh_worker.engines.onnx.decoding import (
    Floats,
    TextLogits,
    read_entities,
    read_sentiment,
    read_topics,
)
from reviewmesh_worker.engines.onnx.encoding import (
    CLS_ID,
    PAD_ID,
    SEP_ID,
    EncodedText,
    TextEncoder,
)
from reviewmesh_worker.tasks.labels import HeadLabels

_WINDOWS_AT_ONCE: Final = 32
_SPREAD: Final = 1.25
_SLACK: Final = 4
"""Windows go together up to `_SPREAD` times the tokens of the shortest, and a few more."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Every task's output for one text, from one pass."""

    ner: NerOutput
    topic: TopicOutput
    sentiment: SentimentOutput


@dataclass(frozen=True, slots=True)
class _Window:
    text: int
    begin: int
    end: int


class OnnxReader:
    """Reads texts with one session; not to be called from two threads at once."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._config = read_config(folder)
        self._encoder = _load_encoder(folder / TOKENIZER_FILE, self._config.labels)
        self._session = _load_session(folder / WEIGHTS_FILE, threads)

    @property
    def labels(self) -> HeadLabels:
        return self._config.labels

    def read(self, texts: Sequence[str]) -> list[Reading]:
        encoded = [self._encoder.encode(text) for text in texts]
        logits = self.logits(encoded)
        config = self._config
        return [
            judge(text, tokens, said, config.labels, config.calibration)
            for text, tokens, said in zip(texts, encoded, logits, strict=True)
        ]

    def encode(self, text: str) -> EncodedText:
        return self._encoder.encode(text)

    def logits(self, encoded: Sequence[EncodedText]) -> list[TextLogits]:
        windows = [
            _Window(number, begin, end)
            for number, text in enumerate(encoded)
            for begin, end in windows_of(len(text), self._config.window, self._config.stride)
        ]
        said: list[tuple[Floats, ...]] = [()] * len(windows)
        for chunk in chunks_of([window.end - window.begin for window in windows]):
            outputs = self._run([(encoded[windows[at].text], windows[at]) for at in chunk])
            for row, at in enumerate(chunk):
                said[at] = tuple(output[row] for output in outputs)
        return _gather(encoded, windows, said)

    def _run(self, batch: Sequence[tuple[EncodedText, _Window]]) -> list[Floats]:
        width = 2 + max(window.end - window.begin for _, window in batch)
        ids = np.full((len(batch), width), PAD_ID, dtype=np.int64)
        shapes = np.zeros((len(batch), width), dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, (text, window) in enumerate(batch):
            size = window.end - window.begin
            ids[row, 0], ids[row, size + 1] = CLS_ID, SEP_ID
            ids[row, 1 : size + 1] = text.ids[window.begin : window.end]
            shapes[row, 1 : size + 1] = text.shapes[window.begin : window.end]
            mask[row, : size + 2] = 1
        outputs: list[Floats] = self._session.run(
            None, {"ids": ids, "shapes": shapes, "mask": mask}
        )
        return outputs


def judge(
    text: str,
    encoded: EncodedText,
    logits: TextLogits,
    labels: HeadLabels,
    calibration: Calibration,
) -> Reading:
    return Reading(
        ner=read_entities(text, encoded, logits, labels, calibration),
        topic=read_topics(logits, labels, calibration),
        sentiment=read_sentiment(logits, labels, calibration),
    )


def windows_of(tokens: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Overlapping ranges that cover all tokens; an empty text has one empty window."""
    begins = range(0, max(tokens - window, 0) + stride, stride)
    ranges = [(begin, min(begin + window, tokens)) for begin in begins]
    return [r for at, r in enumerate(ranges) if at == 0 or ranges[at - 1][1] < tokens]


def chunks_of(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Positions of windows of similar size: padding is work for nothing."""
    chunk: list[int] = []
    for at in sorted(range(len(sizes)), key=lambda at: sizes[at]):
        limit = sizes[chunk[0]] * _SPREAD + _SLACK if chunk else sizes[at]
        if len(chunk) == _WINDOWS_AT_ONCE or sizes[at] > limit:
            yield chunk
            chunk = []
        chunk.append(at)
    if chunk:
        yield chunk


def _gather(
    encoded: Sequence[EncodedText],
    windows: Sequence[_Window],
    said: Sequence[tuple[Floats, ...]],
) -> list[TextLogits]:
    of_text: list[list[int]] = [[] for _ in encoded]
    for at, window in enumerate(windows):
        of_text[window.text].append(at)
    return [
        TextLogits(
            sentiment=np.stack([said[at][0] for at in own]),
            topics=np.stack([said[at][1] for at in own]),
            polarities=np.stack([said[at][2] for at in own]),
            tags=_stitch(len(text), [(windows[at], said[at][3]) for at in own]),
            sizes=np.array([windows[at].end - windows[at].begin for at in own], dtype=np.int64),
        )
        for text, own in zip(encoded, of_text, strict=True)
    ]


def _stitch(tokens: int, parts: Sequence[tuple[_Window, Floats]]) -> Floats:
    """Each token's tags from the window in which it stands farthest from a cut edge."""
    tags = np.zeros((tokens, parts[0][1].shape[-1]), dtype=np.float32)
    margin = np.full(tokens, -1, dtype=np.int64)
    for window, logits in parts:
        here = np.arange(window.begin, window.end)
        own = np.minimum(
            here - window.begin if window.begin else np.full(len(here), tokens),
            window.end - 1 - here if window.end < tokens else np.full(len(here), tokens),
        )
        better: NDArray[np.bool_] = own > margin[here]
        tags[here[better]] = logits[1 : len(here) + 1][better]
        margin[here[better]] = own[better]
    return tags


def _load_encoder(file: Path, labels: HeadLabels) -> TextEncoder:
    try:
        return TextEncoder(file, labels)
    # The tokenizers package raises plain Exception for a missing or broken file.
    except Exception as error:
        raise EngineLoadError(f"expected a tokenizer at {file}: {error}") from error


def _load_session(file: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "bad_alloc" in str(error):
            raise EngineMemoryError(f"no memory for {file}") from error
        raise EngineLoadError(
            f"expected ONNX weights at {file}: {error}; export the model anew"
        ) from error
    inputs = sorted(value.name for value in session.get_inputs())
    if inputs != ["ids", "mask", "shapes"]:
        raise EngineLoadError(f"{file}: expected the inputs ids, mask, shapes, found {inputs}")
    return session
