"""The `openai` engine: a provider's model behind the engine interface.

A request is one review with the task's own prompt; the answer is held to the task's JSON schema
(`response_format`). It is asked for whole words, not for their probabilities, which few providers
give: the label that is named has the score 1.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from openai.types.shared_params import ResponseFormatJSONSchema

from reviewmesh_protos.metadata import OVER_BOUND
from reviewmesh_worker.engines.description import check_task
from reviewmesh_worker.engines.interface import (
    NOT_STARTED,
    UNBOUND,
    Bounds,
    EngineLoad,
    EngineUnavailable,
    Entity,
    ItemFailure,
    ItemResult,
    NerOutput,
    SentimentOutput,
    TaskDescription,
    TaskOutput,
    Topic,
    TopicOutput,
    Usage,
)
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.openai import ENGINE_NAME
from reviewmesh_worker.engines.openai.endpoint import Endpoint, read_key
from reviewmesh_worker.engines.openai.failures import ProviderFailure, encodable
from reviewmesh_worker.engines.openai.prices import Prices, read_prices
from reviewmesh_worker.engines.settings import EngineSettings, OpenAISettings
from reviewmesh_worker.engines.sharing import Shared
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks.answers import (
    answer_form,
    answer_schema,
    read_json_label,
    read_json_polarities,
    read_json_spans,
)
from reviewmesh_worker.tasks.chat import LEFT_OUT
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.instructions import without_turn_marks
from reviewmesh_worker.tasks.prompt import prefix_of

_LOG = logging.getLogger(__name__)
_SCORE: Final = 1.0
_MOST_TOKENS: Final = 100_000_000
_MOST_REQUESTS: Final = 1_000
_MICROS: Final = 1_000_000
# Marks of turns and roles around a prompt.
_TURNS: Final = 64
_NOT_SENT: Final = Usage(
    prompt_tokens=0, cached_tokens=0, completion_tokens=0, cost_micros=0, provider_requests=0
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """How a task is asked."""

    task: Task
    prefix: str
    form: ResponseFormatJSONSchema
    largest_overhead: int
    """Tokens that a provider may count beside the prompt's, for the schema and the turns."""


class OpenAIEngine:
    """To be used from one event loop."""

    def __init__(
        self, package: Package, tasks: Mapping[str, Task], settings: OpenAISettings
    ) -> None:
        """Raises EngineLoadError for a file of the key or of prices that cannot be read."""
        read_key(settings)
        own_prices = read_prices(settings.prices) if settings.prices else ()
        self._settings = settings
        self._prices = Prices(settings.model, settings.base_url, own_prices)
        self._asked = {name: _asked(task) for name, task in tasks.items()}
        self._tasks = {
            name: TaskDescription(
                task=name,
                labels=task.label_ids,
                engine=ENGINE_NAME,
                model=package.manifest.name,
                model_version=package.manifest.version,
                model_digest=package.digest,
                prompt_version=task.version,
                provider=settings.provider_name,
            )
            for name, task in tasks.items()
        }
        self._endpoint: Endpoint | None = None
        # By task and allowed requests: a call that allows one request must not share an inference
        # that may send more.
        self._shared: dict[tuple[str, int], Shared[ItemResult]] = {}
        self._told: set[str] = set()

    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        return self._tasks

    async def start(self) -> None:
        """Sends nothing: the first request is the first review's."""
        self._endpoint = Endpoint(self._settings)

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        check_task(task, self._tasks)
        if self._endpoint is None:
            return [NOT_STARTED] * len(texts)
        if reason := self._endpoint.unavailable():
            raise EngineUnavailable(reason)
        outcomes = await asyncio.gather(*(self._infer(task, text, lane, bounds) for text in texts))
        return [
            one if isinstance(one, ItemResult) else ItemResult(one, one.usage) for one in outcomes
        ]

    def unavailable(self) -> str:
        return "" if self._endpoint is None else self._endpoint.unavailable()

    def check(self) -> None:
        """No process or thread here can die."""

    def load(self) -> EngineLoad:
        if self._endpoint is None:
            return EngineLoad(0, 0, 0.0)
        return EngineLoad(self._endpoint.running, self._endpoint.waiting, kv_usage=0.0)

    async def close(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.close()

    async def _infer(
        self, task: str, text: str, lane: Lane, bounds: Bounds
    ) -> ItemResult | ItemFailure:
        if told := self._over_bound(self._asked[task], text, bounds):
            return ItemFailure(OVER_BOUND, told, retryable=False, usage=_NOT_SENT)
        allowed = min(self._settings.max_requests, bounds.provider_requests or _MOST_REQUESTS)
        try:
            return await self._shared_of(task, allowed).infer(text, lane)
        except EngineUnavailable as error:
            if not bounds.provider_requests:
                raise
            # Who counts requests has to learn of this one.
            usage = Usage(provider_requests=error.requests)
            return ItemFailure("UNAVAILABLE", str(error), retryable=True, usage=usage)

    def _over_bound(self, asked: _Asked, text: str, bounds: Bounds) -> str:
        """Why the text might take more than is allowed; empty when it cannot.

        No tokenizer makes more tokens of a text than it has bytes.
        """
        if not bounds.tokens and not bounds.cost_micros:
            return ""
        prompt = asked.prefix + text_for_prompt(text, self._settings.max_text)
        sent = asked.largest_overhead + len(prompt.encode())
        completion = self._settings.max_completion_tokens
        if bounds.tokens and sent + completion > bounds.tokens:
            return f"it might take {sent + completion:,} tokens, {bounds.tokens:,} are allowed"
        if not bounds.cost_micros:
            return ""
        now = datetime.now(UTC)
        costs = [self._prices.micros(sent, cached, completion, now) for cached in (0, sent)]
        known = [cost for cost in costs if cost is not None]
        if not known:
            return "what it costs is not known; give a file of prices: REVIEWMESH_OPENAI__PRICES"
        if max(known) > bounds.cost_micros:
            most = bounds.cost_micros / _MICROS
            return f"it might cost {max(known) / _MICROS:.6f} US dollars, {most:.6f} are allowed"
        return ""

    def _shared_of(self, task: str, allowed: int) -> Shared[ItemResult]:
        async def run(text: str, lane: Lane) -> ItemResult | ItemFailure:
            return await self._ask(self._asked[task], text, lane, allowed)

        if (task, allowed) not in self._shared:
            self._shared[task, allowed] = Shared(run)
        return self._shared[task, allowed]

    async def _ask(
        self, asked: _Asked, text: str, lane: Lane, allowed: int
    ) -> ItemResult | ItemFailure:
        assert self._endpoint is not None
        prompt = asked.prefix + text_for_prompt(text, self._settings.max_text)
        at, began = datetime.now(UTC), time.monotonic()
        reply = await self._endpoint.ask(prompt, asked.form, lane, allowed)
        usage = Usage(
            queue_ms=int(reply.queue_s * 1000),
            inference_ms=int((time.monotonic() - began - reply.queue_s) * 1000),
            provider_requests=reply.requests,
        )
        if isinstance(reply.completion, ProviderFailure):
            failure = reply.completion
            return ItemFailure(failure.code, failure.message, failure.retryable, usage)
        usage = self._counted(reply.completion, usage, at)
        outcome = read_completion(asked.task, reply.completion, text)
        if isinstance(outcome, ItemFailure):
            return replace(outcome, usage=usage)
        self._notice_model(reply.completion)
        return ItemResult(outcome, usage)

    def _counted(self, completion: Any, usage: Usage, at: datetime) -> Usage:
        """With the tokens that the provider counted and their price, if both are plausible."""
        tokens = tokens_of(completion)
        if tokens is None:
            self._tell_once("tells no usage that can be believed: tokens and cost stay empty")
            return usage
        prompt, cached, completed = tokens
        assert self._endpoint is not None
        self._endpoint.answered(completed)
        return replace(
            usage,
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completed,
            cost_micros=self._prices.micros(prompt, cached, completed, at),
        )

    def _notice_model(self, completion: Any) -> None:
        answered = getattr(completion, "model", None)
        if isinstance(answered, str) and answered and answered != self._settings.model:
            self._tell_once(
                f"answers as {encodable(answered[:200])} when asked for {self._settings.model}; "
                "name the dated model, so that the lineage says which one it was"
            )

    def _tell_once(self, what: str) -> None:
        if what not in self._told and len(self._told) < 100:
            self._told.add(what)
            _LOG.warning("the endpoint %s %s", self._settings.base_url, what)


def open_engine(
    package: Package, tasks: Mapping[str, Task], settings: EngineSettings
) -> OpenAIEngine:
    return OpenAIEngine(package, tasks, settings.openai)


def _asked(task: Task) -> _Asked:
    form: ResponseFormatJSONSchema = {
        "type": "json_schema",
        "json_schema": {"name": task.name, "strict": True, "schema": answer_schema(task)},
    }
    return _Asked(
        task=task,
        prefix=f"{answer_form(task)}\n\n{prefix_of(task)}",
        form=form,
        largest_overhead=len(json.dumps(form).encode()) + _TURNS,
    )


def text_for_prompt(text: str, most: int) -> str:
    """The review as it is sent: without chat turn markers, without the middle of a long one."""
    text = without_turn_marks(text).encode("utf-8", "replace").decode()
    if len(text) <= most:
        return text
    end = (most - len(LEFT_OUT)) // 2
    return text[: most - len(LEFT_OUT) - end] + LEFT_OUT + text[-end:]


def read_completion(task: Task, completion: Any, text: str) -> TaskOutput | ItemFailure:
    """The output in a chat completion. Its fields may be missing or of any type."""
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    reason = getattr(choice, "finish_reason", None)
    if getattr(message, "refusal", None) or reason == "content_filter":
        return ItemFailure("REFUSED", "the model refused to answer", retryable=False)
    if reason == "length":
        told = "the answer was cut off; raise REVIEWMESH_OPENAI__MAX_COMPLETION_TOKENS"
        return ItemFailure("TRUNCATED", told, retryable=False)
    content = getattr(message, "content", None)
    if not isinstance(content, str):
        return ItemFailure("INVALID_ANSWER", "expected a chat completion with a text", True)
    try:
        return _read(task, content, text)
    except ValueError as error:
        why = encodable(f"{error} (finish_reason {str(reason)[:40]})")
        told = f"{why}; does the endpoint keep to json_schema?"
        return ItemFailure("INVALID_ANSWER", told, retryable=False)


def _read(task: Task, answer: str, text: str) -> TaskOutput:
    """Raises ValueError."""
    if task.answer == "label":
        named = read_json_label(task, answer)
        return SentimentOutput(named, {label: float(label == named) for label in task.label_ids})
    if task.answer == "polarity_per_label":
        said = read_json_polarities(task, answer)
        return TopicOutput(tuple(Topic(topic, _SCORE, word) for topic, word in said.items()))
    return NerOutput(
        tuple(
            Entity(span.start, span.end, text[span.start : span.end], span.label, _SCORE)
            for span in read_json_spans(task, answer, text)
        )
    )


def tokens_of(completion: Any) -> tuple[int, int, int] | None:
    """Tokens of the prompt, cached tokens, tokens of the answer; None if they are implausible."""
    usage = getattr(completion, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    prompt = _count(getattr(usage, "prompt_tokens", None))
    completed = _count(getattr(usage, "completion_tokens", None))
    # Many endpoints do not report cached tokens.
    cached = _count(getattr(details, "cached_tokens", None) or 0)
    if not prompt or completed is None or cached is None or cached > prompt:
        return None
    return prompt, cached, completed


def _count(said: Any) -> int | None:
    if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said <= _MOST_TOKENS:
        return None
    return said
