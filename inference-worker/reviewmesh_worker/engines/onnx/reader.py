"""Runs the ONNX model: texts of any length in, the logits of all heads out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from reviewmesh_worker.engines.encoder.config import TOKENIZER_FILE, WEIGHTS_FILE, read_config
from reviewmesh_worker.engines.encoder.decoding import Floats, TextLogits
from reviewmesh_worker.engines.encoder.encoding import EncodedText, load_encoder
from reviewmesh_worker.engines.encoder.windows import TaskOutputs, Window, cut, gather, judge
from reviewmesh_worker.engines.interface import EngineLoadError, EngineMemoryError
from reviewmesh_worker.tasks.labels import HeadLabels

_WINDOWS_AT_ONCE: Final = 32
_SPREAD: Final = 1.25
_SLACK: Final = 4
"""Windows of up to `_SPREAD` times the tokens of the shortest, plus `_SLACK`, share a batch."""


class OnnxReader:
    """Runs texts through one session. Not thread-safe."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._config = read_config(folder)
        self._encoder = load_encoder(
            folder / TOKENIZER_FILE, self._config.labels, self._config.form
        )
        self._session = _load_session(folder / WEIGHTS_FILE, threads)

    @property
    def labels(self) -> HeadLabels:
        return self._config.labels

    def read(self, texts: Sequence[str]) -> list[TaskOutputs]:
        encoded = [self._encoder.encode(text) for text in texts]
        logits = self.logits(encoded)
        config = self._config
        return [
            judge(text, tokens, logits=own, labels=config.labels, calibration=config.calibration)
            for text, tokens, own in zip(texts, encoded, logits, strict=True)
        ]

    def encode(self, text: str) -> EncodedText:
        return self._encoder.encode(text)

    def logits(self, encoded: Sequence[EncodedText]) -> list[TextLogits]:
        windows = cut(encoded, self._config)
        heads: list[tuple[Floats, ...]] = [()] * len(windows)
        for chunk in chunks_of([len(window) for window in windows]):
            outputs = self._run([(encoded[windows[at].text], windows[at]) for at in chunk])
            for row, at in enumerate(chunk):
                heads[at] = tuple(output[row] for output in outputs)
        return gather(encoded, windows, heads)

    def _run(self, batch: Sequence[tuple[EncodedText, Window]]) -> list[Floats]:
        form = self._config.form
        width = 2 + max(len(window) for _, window in batch)
        ids = np.full((len(batch), width), form.padding, dtype=np.int64)
        shapes = np.zeros((len(batch), width), dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, (text, window) in enumerate(batch):
            size = len(window)
            ids[row, 0], ids[row, size + 1] = form.start, form.end
            ids[row, 1 : size + 1] = text.ids[window.begin : window.end]
            shapes[row, 1 : size + 1] = text.shapes[window.begin : window.end]
            mask[row, : size + 2] = 1
        outputs: list[Floats] = self._session.run(
            None, {"ids": ids, "shapes": shapes, "mask": mask}
        )
        return outputs


def chunks_of(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Indices of windows of similar size, to keep padding small."""
    chunk: list[int] = []
    for at in sorted(range(len(sizes)), key=lambda at: sizes[at]):
        limit = sizes[chunk[0]] * _SPREAD + _SLACK if chunk else sizes[at]
        if len(chunk) == _WINDOWS_AT_ONCE or sizes[at] > limit:
            yield chunk
            chunk = []
        chunk.append(at)
    if chunk:
        yield chunk


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
