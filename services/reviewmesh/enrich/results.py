"""Builds the result record of a task from a worker's answer. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from reviewmesh.enrich.items import Answer, CallMade, number_of
from reviewmesh.enrich.routes import CANDIDATE, FALLBACK, PRIMARY
from reviewmesh_protos.inference.v1 import inference_pb2

OUTPUTS: dict[str, type] = {
    "ner": inference_pb2.NerOutput,
    "topic": inference_pb2.TopicOutput,
    "sentiment": inference_pb2.SentimentOutput,
}


STATUS_OF = {PRIMARY: "OK", CANDIDATE: "OK", FALLBACK: "FALLBACK"}
MAX_ERROR = 2_000
MAX_LINEAGE_FIELD = 1_000


class UnusableAnswer(ValueError):
    """An answer cannot become a result; the message says what was expected and what came."""


def lineage_of(
    lineage: inference_pb2.Lineage | None,
    usage: inference_pb2.Usage | None,
    attempts: int,
    route: str = PRIMARY,
    rollout: str | None = None,
    candidate_error: str | None = None,
    call: CallMade | None = None,
) -> dict[str, Any] | None:
    """The lineage in a result; None if no worker reported a model.

    `route`: the pool of the worker that answered.
    """
    if lineage is None:
        return None
    return {
        "task": lineage.task,
        "engine": lineage.engine,
        "model": lineage.model,
        "model_version": lineage.model_version,
        "model_digest": lineage.model_digest,
        "prompt_version": lineage.prompt_version or None,
        "attempts": attempts,
        "route": route,
        "queue_ms": number_of(usage, "queue_ms"),
        "inference_ms": number_of(usage, "inference_ms"),
        "prompt_tokens": number_of(usage, "prompt_tokens"),
        "cached_tokens": number_of(usage, "cached_tokens"),
        "completion_tokens": number_of(usage, "completion_tokens"),
        "cost_micros": number_of(usage, "cost_micros"),
        "provider": lineage.provider or None,
        "provider_requests": number_of(usage, "provider_requests"),
        "language": (usage.language or None) if usage is not None else None,
        "language_measured": (
            usage.language_measured
            if usage is not None and usage.HasField("language_measured")
            else None
        ),
        "rollout": rollout,
        "candidate_error": candidate_error,
        "call_id": None if call is None else call.id,
        "called_at": None if call is None else call.began_ms,
    }


def lineage_of_answer(answer: Answer) -> dict[str, Any] | None:
    """As `lineage_of`."""
    return lineage_of(
        answer.lineage,
        answer.usage,
        answer.attempts,
        answer.route,
        answer.rollout,
        answer.candidate_error,
        answer.call,
    )


def result_fields(task: str, text: str, answer: Answer) -> dict[str, Any]:
    """The fields of the result of an answer. Raises UnusableAnswer."""
    lineage = lineage_of_answer(answer)
    if lineage is None:
        raise UnusableAnswer("expected the worker to say which model answered, got no lineage")
    fields = payload(task, answer.output, text)
    return {"status": STATUS_OF[answer.route], "error": None, "lineage": lineage, **fields}


def failure_fields(message: str, lineage: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a FAILED result, without a lineage whose strings are too long."""
    # The message may quote text that UTF-8 cannot encode.
    error = message[:MAX_ERROR].encode("utf-8", "backslashreplace").decode()
    if lineage is not None and any(
        isinstance(value, str) and len(value) > MAX_LINEAGE_FIELD for value in lineage.values()
    ):
        lineage = None
    return {"status": "FAILED", "error": error, "lineage": lineage}


def payload(task: str, output: Any, text: str) -> dict[str, Any]:
    """The task's own fields of its result, without entities whose span does not match the text.

    Raises UnusableAnswer.
    """
    expected, got = OUTPUTS[task].__name__, type(output).__name__
    if got != expected:
        raise UnusableAnswer(f"expected the worker to answer with {expected}, got {got}")
    if task == "ner":
        entities = [
            {
                "start": entity.start,
                "end": entity.end,
                "text": entity.text,
                "label": entity.label,
                "score": entity.score,
            }
            for entity in output.entities
            if 0 <= entity.start < entity.end <= len(text)
            and text[entity.start : entity.end] == entity.text
        ]
        _check_scores(entity["score"] for entity in entities)
        return {"entities": sorted(entities, key=lambda entity: (entity["start"], entity["end"]))}
    if task == "topic":
        topics = [
            {"id": topic.id, "score": topic.score, "polarity": topic.polarity or None}
            for topic in output.topics
        ]
        _check_scores(topic["score"] for topic in topics)
        return {"topics": sorted(topics, key=lambda topic: -topic["score"])}
    scores = dict(output.scores)
    _check_scores(scores.values())
    return {"sentiment": {"label": output.label, "scores": scores}}


def _check_scores(scores: Iterable[float]) -> None:
    for score in scores:
        if not math.isfinite(score):
            raise UnusableAnswer(f"expected the worker to give finite scores, got {score}")
