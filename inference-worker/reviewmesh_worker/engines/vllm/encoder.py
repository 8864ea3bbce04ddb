"""The bundled encoder on vLLM: pooling gives the logits of each window, decoded as for `onnx`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_worker.engines.description import check_task
from reviewmesh_worker.engines.encoder.config import (
    TOKENIZER_FILE,
    EncoderForm,
    ModelConfig,
    read_config,
)
from reviewmesh_worker.engines.encoder.decoding import Floats, TextLogits
from reviewmesh_worker.engines.encoder.encoding import (
    EncodedText,
    TextEncoder,
    load_encoder,
)
from reviewmesh_worker.engines.encoder.windows import TaskOutputs, Window, cut, gather, judge
from reviewmesh_worker.engines.interface import (
    NOT_STARTED,
    UNBOUND,
    Bounds,
    EngineLoadError,
    ItemFailure,
    ItemResult,
    Usage,
)
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.sharing import Shared
from reviewmesh_worker.engines.vllm.base import VllmEngine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.labels import HeadLabels

_WINDOWS_AT_ONCE: Final = 16
"""Windows of one text in the engine at once, so that a long text does not block short ones."""
_LONG: Final = 4_000
"""From so many code points, a text is split and decoded in a thread, off the event loop."""
_WARM_UP: Final = ("Warm", "Warm words of about the length that a review has, twice over.")
_POOLING: Final = "token_classify"


@dataclass(frozen=True, slots=True)
class _Read:
    reading: TaskOutputs
    usage: Usage


class VllmEncoderEngine(VllmEngine):
    """One pooling request per window answers every task.

    The package's settings are read at once, the weights by `start`.
    """

    def __init__(self, package: Package, tasks: Mapping[str, Task], settings: VllmSettings) -> None:
        config = read_config(package.folder)
        super().__init__(package, tasks, config.labels.by_task(), settings)
        self._config = config
        self._encoder: TextEncoder | None = None
        self._shared: Shared[_Read] = Shared(self._read)

    async def start(self) -> None:
        package = self._package
        self._encoder = load_encoder(
            package.folder / TOKENIZER_FILE, self._config.labels, self._config.form
        )
        form = await asyncio.to_thread(_form_of, package)
        await self._start_core(
            str(form), encoder=True, more={"max_model_len": self._config.window + 2}
        )
        for text in _WARM_UP:
            outcome = await self._read(text, Lane.INTERACTIVE)
            if isinstance(outcome, ItemFailure):
                raise EngineLoadError(f"{package.folder}: the warm-up failed, {outcome.message}")

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        check_task(task, self._tasks)
        if self._core is None:
            return [NOT_STARTED] * len(texts)
        outcomes = await asyncio.gather(*(self._shared.infer(text, lane) for text in texts))
        return [_answer(task, outcome) for outcome in outcomes]

    async def _read(self, text: str, lane: Lane) -> _Read | ItemFailure:
        assert self._encoder is not None
        began = time.monotonic()
        if len(text) < _LONG:
            encoded = self._encoder.encode(text)
        else:
            encoded = await asyncio.to_thread(self._encoder.encode, text)
        windows = cut([encoded], self._config)
        rows = await self._pool(encoded, windows, lane)
        if isinstance(rows, ItemFailure):
            return rows
        labels = self._config.labels
        heads = [split(row, labels) for row in rows]
        (logits,) = gather([encoded], windows, heads)
        if len(text) < _LONG:
            reading = _judge(text, encoded, logits, self._config)
        else:
            reading = await asyncio.to_thread(_judge, text, encoded, logits, self._config)
        usage = Usage(
            inference_ms=int((time.monotonic() - began) * 1000),
            prompt_tokens=sum(len(window) + 2 for window in windows),
        )
        return _Read(reading, usage)

    async def _pool(
        self, encoded: EncodedText, windows: Sequence[Window], lane: Lane
    ) -> list[Floats] | ItemFailure:
        assert self._core is not None
        core, room = self._core, asyncio.Semaphore(_WINDOWS_AT_ONCE)

        async def pool(window: Window) -> Floats | ItemFailure:
            async with room:
                row = await core.pool(packed(encoded, window, self._config.form), _POOLING, lane)
                return row if isinstance(row, ItemFailure) else row.numpy()

        rows: list[Floats] = []
        for row in await asyncio.gather(*(pool(window) for window in windows)):
            if isinstance(row, ItemFailure):
                return row
            rows.append(row)
        return rows


def packed(encoded: EncodedText, window: Window, form: EncoderForm) -> list[int]:
    """A window between its special tokens; a token's shape is part of its id."""
    here = slice(window.begin, window.end)
    ids = encoded.ids[here] + form.vocabulary * encoded.shapes[here]
    return [form.start, *ids.tolist(), form.end]


def split(row: NDArray[np.float32], labels: HeadLabels) -> tuple[Floats, ...]:
    """The heads' logits from one pooled row, see `review_encoder.HeadsPooler`."""
    topics, polarities = len(labels.topics), len(labels.polarities)
    sizes = (len(labels.sentiments), topics, topics * polarities)
    sentiment, present, polar, tags = np.split(row, np.cumsum(sizes))
    return (
        sentiment,
        present,
        polar.reshape(topics, polarities),
        tags.reshape(-1, len(labels.tags)),
    )


def _judge(text: str, encoded: EncodedText, logits: TextLogits, config: ModelConfig) -> TaskOutputs:
    return judge(text, encoded, logits=logits, labels=config.labels, calibration=config.calibration)


def _answer(task: str, outcome: _Read | ItemFailure) -> ItemResult:
    if isinstance(outcome, ItemFailure):
        return ItemResult(outcome)
    return ItemResult(outcome.reading.output(task), outcome.usage)


def _form_of(package: Package) -> Path:
    try:
        from reviewmesh_worker.engines.vllm.derived import huggingface_form
    except ModuleNotFoundError as error:
        raise EngineLoadError(
            f"the vllm engine needs the package {error.name}: install requirements/vllm.txt"
        ) from error
    return huggingface_form(package)
