"""Chat models on vLLM: one request per review and task, with scores from the model itself.

Sentiment is one token out of the labels, its scores their probabilities. Topics are one token for
each topic, out of none and the polarities, in one request. Names are a JSON list that a grammar
constrains. Decoding is greedy; probabilities are taken after the mask or grammar, so they are
normalised over the allowed words.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from reviewmesh_worker.engines.description import check_task
from reviewmesh_worker.engines.interface import (
    NOT_STARTED,
    UNBOUND,
    Bounds,
    EngineLoadError,
    Entity,
    ItemFailure,
    ItemResult,
    NerOutput,
    SentimentOutput,
    TaskOutput,
    Topic,
    TopicOutput,
    Usage,
)
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.sharing import Shared
from reviewmesh_worker.engines.vllm.base import VllmEngine
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.answers import read_spans, spans_grammar, words_in_answer, words_of
from reviewmesh_worker.tasks.calibration import CalibrationError, ChatCalibration, read_calibration
from reviewmesh_worker.tasks.chat import ChatError, ChatPrompts
from reviewmesh_worker.tasks.definition import Task

_LONG: Final = 4_000
"""From so many code points, a prompt is rendered in a thread, off the event loop."""
_WARM_UP: Final = "Warm words of about the length that a review has."


@dataclass(frozen=True, slots=True)
class _Prompted:
    """How this model is prompted for one task."""

    prompts: ChatPrompts
    sampling: Any
    shared: Shared[ItemResult]


class VllmChatEngine(VllmEngine):
    """One chat model that answers one or more tasks.

    The package's calibration is read at once, the weights by `start`.
    """

    def __init__(self, package: Package, tasks: Mapping[str, Task], settings: VllmSettings) -> None:
        # A chat model answers with the words of its prompt. The labels that it was trained on are
        # checked by the digest of the task's definition in its manifest.
        labels = {name: task.label_ids for name, task in tasks.items()}
        super().__init__(package, tasks, labels, settings)
        try:
            self._calibration = read_calibration(
                package.folder, labels.get(SENTIMENT, ()), labels.get(TOPIC, ())
            )
        except CalibrationError as error:
            raise EngineLoadError(str(error)) from error
        self._definitions = tasks
        self._prompted: dict[str, _Prompted] = {}

    async def start(self) -> None:
        package = self._package
        core = await self._start_core(
            str(package.folder),
            encoder=False,
            more=chat_arguments(self._definitions)
            | {"max_model_len": context_of(package.folder, self._settings.max_model_len)},
        )
        tokenizer = await asyncio.to_thread(load_tokenizer, package.folder)
        context = int(core.llm.model_config.max_model_len)
        self._prompted = {
            name: self._prompt(task, tokenizer, context) for name, task in self._definitions.items()
        }
        for prompted in self._prompted.values():
            # Compiles the grammars and caches the prompts; the answer does not matter.
            await self._generate(prompted, _WARM_UP, Lane.INTERACTIVE)

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        check_task(task, self._tasks)
        prompted = self._prompted.get(task)
        if prompted is None:
            return [NOT_STARTED] * len(texts)
        outcomes = await asyncio.gather(*(prompted.shared.infer(text, lane) for text in texts))
        return [
            one if isinstance(one, ItemResult) else ItemResult(one, one.usage) for one in outcomes
        ]

    def _prompt(self, task: Task, tokenizer: Any, context: int) -> _Prompted:
        try:
            prompts = ChatPrompts(tokenizer, task, context)
            # Raises here for too short a context, not with the first long review.
            assert prompts.room
        except ChatError as error:
            raise EngineLoadError(f"{self._package.folder}: {error}") from error

        async def run(text: str, lane: Lane) -> ItemResult | ItemFailure:
            return await self._generate(self._prompted[task.name], text, lane)

        return _Prompted(prompts, sampling_of(prompts), Shared(run))

    async def _generate(
        self, prompted: _Prompted, text: str, lane: Lane
    ) -> ItemResult | ItemFailure:
        assert self._core is not None
        if len(text) < _LONG:
            (ids,) = prompted.prompts.prompts([text])
        else:
            (ids,) = await asyncio.to_thread(prompted.prompts.prompts, [text])
        began = time.monotonic()
        output = await self._core.generate(ids, prompted.sampling, lane)
        if isinstance(output, ItemFailure):
            return output
        usage = _usage(output, time.monotonic() - began)
        outcome = self._read(prompted.prompts, text, output.outputs[0])
        if isinstance(outcome, ItemFailure):
            return replace(outcome, usage=usage)
        return ItemResult(outcome, usage)

    def _read(self, prompts: ChatPrompts, text: str, completion: Any) -> TaskOutput | ItemFailure:
        task, calibration = prompts.task, self._calibration
        if task.answer == "spans":
            return read_names(task, text, completion)
        words = list(zip(prompts.words, prompts.word_ids, strict=True))
        steps = [{word: step[id].logprob for word, id in words} for step in completion.logprobs]
        if task.answer == "label":
            scores = calibration.sentiment_scores(steps[0])
            return SentimentOutput(max(scores, key=lambda label: scores[label]), scores)
        return topics_by_score(task, steps, calibration)


def chat_arguments(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Engine arguments that the answers of these tasks need."""
    return {
        # The settings of one request must not change the answers of others in its batch: of vLLM's
        # modes for log-probabilities, only this one is safe in a batch of several tasks.
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": max(len(words_of(task)) for task in tasks.values()),
        "structured_outputs_config": {"backend": "xgrammar"},
    }


def context_of(folder: Path, wanted: int) -> int:
    """The context length in tokens: prompt and answer. Raises EngineLoadError."""
    file = folder / "config.json"
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        return min(wanted, int(described["max_position_embeddings"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineLoadError(
            f"expected a chat model in Hugging Face form with max_position_embeddings at {file}, "
            f"{error!r}"
        ) from error


def sampling_of(prompts: ChatPrompts) -> Any:
    """vLLM's parameters for an answer of a task."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    task = prompts.task
    common: dict[str, Any] = {"temperature": 0.0, "output_kind": RequestOutputKind.FINAL_ONLY}
    if task.answer == "spans":
        return SamplingParams(
            max_tokens=prompts.answer_tokens,
            stop_token_ids=[prompts.end],
            logprobs=0,
            structured_outputs=StructuredOutputsParams(grammar=spans_grammar(task)),
            **common,
        )
    return SamplingParams(
        max_tokens=words_in_answer(task),
        allowed_token_ids=list(prompts.word_ids),
        logprobs=len(prompts.words),
        detokenize=False,
        **common,
    )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a chat model. Raises EngineLoadError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # transformers raises whatever broke: JSON, missing files, unknown classes.
    except Exception as error:
        raise EngineLoadError(f"expected a tokenizer in {folder}: {error}") from error


def topics_by_score(
    task: Task, steps: Sequence[Mapping[str, float]], calibration: ChatCalibration
) -> TopicOutput:
    """Topics by falling score, from the log-probabilities of the words at each topic's place.

    A threshold may decide against the likelier word; the words after it were still generated with
    the likelier one as context.
    """
    topics = []
    for topic, logprobs in zip(task.label_ids, steps, strict=True):
        score, polarity = calibration.topic_score(logprobs)
        if score >= calibration.topic_thresholds[topic]:
            topics.append(Topic(topic, score, polarity))
    return TopicOutput(tuple(sorted(topics, key=lambda topic: -topic.score)))


def read_names(task: Task, text: str, completion: Any) -> NerOutput | ItemFailure:
    """Names that stand in the text; a name's score is the mean probability of its tokens."""
    try:
        spans = read_spans(task, completion.text, text)
        scores = name_scores(completion)
    except ValueError as error:
        ended = f"{completion.finish_reason} after {len(completion.token_ids)} tokens"
        message = f"expected a list of names, {error} (ended by {ended})"
        return ItemFailure("INVALID_ANSWER", message, retryable=False)
    return NerOutput(
        tuple(
            Entity(
                start=span.start,
                end=span.end,
                text=text[span.start : span.end],
                label=span.label,
                score=scores[span.position],
            )
            for span in spans
        )
    )


def name_scores(completion: Any) -> list[float]:
    """Of each object in the list: exp of the mean log-probability of the tokens it is written in.

    The text is rebuilt from the tokens as decoded one by one. Where several tokens make one
    character it may differ from the answer, but its braces are in the same order.
    """
    pieces = [
        (step[token].decoded_token or "", step[token].logprob)
        for token, step in zip(completion.token_ids, completion.logprobs, strict=True)
    ]
    written = "".join(piece for piece, _ in pieces)
    ends: list[int] = []
    for piece, _ in pieces:
        ends.append((ends[-1] if ends else 0) + len(piece))
    scores: list[float] = []
    at = written.find("{")
    decoder = json.JSONDecoder(strict=False)
    while at >= 0:
        _, end = decoder.raw_decode(written, at)
        inside = [
            logprob
            for (piece, logprob), stop in zip(pieces, ends, strict=True)
            if stop > at and stop - len(piece) < end
        ]
        scores.append(math.exp(sum(inside) / len(inside)))
        at = written.find("{", end)
    return scores


def _usage(output: Any, seconds: float) -> Usage:
    timed = output.metrics
    queued = max(timed.scheduled_ts - timed.queued_ts, 0.0) if timed else 0.0
    return Usage(
        queue_ms=int(queued * 1000),
        inference_ms=int((seconds - queued) * 1000),
        prompt_tokens=len(output.prompt_token_ids),
        cached_tokens=output.num_cached_tokens,
        completion_tokens=len(output.outputs[0].token_ids),
    )
