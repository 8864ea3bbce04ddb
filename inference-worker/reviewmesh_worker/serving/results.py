"""Converts the answers of an engine into messages of the contract."""

from __future__ import annotations

from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_worker.engines.interface import (
    ItemFailure,
    ItemResult,
    NerOutput,
    TaskDescription,
    TopicOutput,
    Usage,
)


def lineage_of(task: TaskDescription) -> inference_pb2.Lineage:
    return inference_pb2.Lineage(
        task=task.task,
        engine=task.engine,
        model=task.model,
        model_version=task.model_version,
        model_digest=task.model_digest,
        prompt_version=task.prompt_version,
        provider=task.provider,
    )


def to_usage(
    usage: Usage, so_far_ms: int, language: str = "", measured: bool | None = None
) -> inference_pb2.Usage:
    """`so_far_ms`, the time of the call, is used where the engine measures none."""
    return inference_pb2.Usage(
        queue_ms=usage.queue_ms,
        inference_ms=so_far_ms if usage.inference_ms is None else usage.inference_ms,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        cost_micros=usage.cost_micros,
        provider_requests=usage.provider_requests,
        language=language,
        language_measured=measured,
    )


def to_result(
    item_id: str,
    answer: ItemResult,
    so_far_ms: int,
    language: str = "",
    measured: bool | None = None,
) -> inference_pb2.Result:
    """`measured` is None where the model's package names no languages."""
    outcome = answer.outcome
    usage = to_usage(answer.usage, so_far_ms, language=language, measured=measured)
    result = inference_pb2.Result(id=item_id, usage=usage)
    if isinstance(outcome, ItemFailure):
        result.error.code = outcome.code
        result.error.message = outcome.message
        result.error.retryable = outcome.retryable
    elif isinstance(outcome, NerOutput):
        result.ner.SetInParent()
        for entity in outcome.entities:
            result.ner.entities.add(
                start=entity.start,
                end=entity.end,
                text=entity.text,
                label=entity.label,
                score=entity.score,
            )
    elif isinstance(outcome, TopicOutput):
        result.topic.SetInParent()
        for topic in outcome.topics:
            result.topic.topics.add(id=topic.id, score=topic.score, polarity=topic.polarity)
    else:
        result.sentiment.label = outcome.label
        for label, score in outcome.scores.items():
            result.sentiment.scores[label] = score
    return result
