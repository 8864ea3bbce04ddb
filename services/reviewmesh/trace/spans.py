"""The spans of one review, from its enriched record or its dead letter. Pure.

The services write no spans. The record knows when each step was done, and its ids make the spans'
ids: whoever writes them again, after a kill, writes the same.

Names and attributes follow OpenTelemetry's semantic conventions for messaging and for generative
AI, as of SCHEMA_URL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import SpanKind

from reviewmesh.kafka.record import Record
from reviewmesh.kafka.tracing import TraceContext
from reviewmesh_schemas.names import ACCEPTED, ENRICHED, TASKS

SCHEMA_URL = "https://opentelemetry.io/schemas/1.40.0"
Attributes = dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Span:
    """Times are in milliseconds since 1970."""

    service: str
    """Name of its Resource, without the mesh's prefix."""
    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    parent_id: int | None
    start_ms: float
    end_ms: float
    attributes: Attributes = field(default_factory=dict)
    error: str | None = None
    """Why it failed; None where it did not."""
    links: tuple[tuple[int, int], ...] = ()
    """Trace and span of each."""


def spans_of_enriched(
    enriched: Mapping[str, Any], record: Record, context: TraceContext, reason: str
) -> Iterator[Span]:
    """The whole trace of a review. `record`: where the enriched review was read from."""
    timings = enriched["timings"] or {}
    place = f"{enriched['accepted_partition']}/{enriched['accepted_offset']}"

    def span_id(*names: str) -> int:
        return _id(f"{context.trace_id:032x}", place, *names)

    intake_id = context.parent_id if context.is_ours else span_id("intake")
    accepted_ms = _first(timings.get("accepted_at"), enriched["accepted_at"], record.timestamp_ms)
    origin_ms = min(_first(timings.get("origin_at"), accepted_ms), accepted_ms)
    enriched_ms = _first(timings.get("enriched_at"), record.timestamp_ms)
    review: Attributes = {"reviewmesh.review_id": enriched["review_id"]}
    yield Span(
        "intake",
        f"process {enriched['source_topic'] or 'reviews.raw'}",
        SpanKind.CONSUMER,
        context.trace_id,
        intake_id,
        None if context.is_ours else context.parent_id,
        origin_ms,
        accepted_ms,
        review
        | _messaging("process", enriched["source_topic"], enriched["source_partition"])
        | _known({"messaging.kafka.offset": enriched["source_offset"]})
        | {"reviewmesh.traced_because": reason},
    )
    last_ms = accepted_ms
    for task in TASKS:
        outcome = enriched["tasks"].get(task)
        if outcome is None:
            continue
        answered_ms = timings.get(f"{task}_at")
        last_ms = max(last_ms, _first(answered_ms, last_ms))
        yield from _spans_of_task(
            task,
            outcome,
            context.trace_id,
            (span_id("enrich", task), intake_id),
            (accepted_ms, _first(answered_ms, enriched_ms)),
            review,
        )
    revision = str(enriched["revision"])
    join_id = span_id("join", revision)
    complete = bool(enriched["complete"])
    waited = "every task answered" if complete else "a task is missing or failed"
    yield Span(
        "joiner",
        f"join {ENRICHED}",
        SpanKind.INTERNAL,
        context.trace_id,
        join_id,
        intake_id,
        last_ms,
        max(last_ms, enriched_ms),
        review | {"reviewmesh.revision": enriched["revision"], "reviewmesh.complete": complete},
        None if complete else waited,
    )
    yield Span(
        "joiner",
        f"send {ENRICHED}",
        SpanKind.PRODUCER,
        context.trace_id,
        span_id("send", revision),
        join_id,
        max(last_ms, enriched_ms),
        max(last_ms, enriched_ms, record.timestamp_ms),
        review
        | _messaging("send", ENRICHED, record.partition)
        | {"messaging.kafka.offset": record.offset},
    )


def _spans_of_task(
    task: str,
    outcome: Mapping[str, Any],
    trace_id: int,
    ids: tuple[int, int],
    times: tuple[float, float],
    review: Attributes,
) -> Iterator[Span]:
    """`ids`: of the task's span and its parent. `times`: accepted, answered."""
    own_id, parent_id = ids
    accepted_ms, answered_ms = times[0], max(times)
    lineage = outcome["lineage"] or {}
    status = outcome["status"]
    error = None if status in ("OK", "FALLBACK") else outcome["error"] or status
    service = f"enricher-{task}"
    call = _call_of(lineage)
    yield Span(
        service,
        f"process {ACCEPTED}",
        SpanKind.CONSUMER,
        trace_id,
        own_id,
        parent_id,
        accepted_ms,
        answered_ms,
        review
        | _messaging("process", ACCEPTED, None)
        | {"reviewmesh.task": task, "reviewmesh.status": status}
        | _known(
            {
                "reviewmesh.attempts": lineage.get("attempts"),
                "reviewmesh.route": lineage.get("route"),
                "reviewmesh.rollout": lineage.get("rollout"),
            }
        ),
        error,
        links=() if call is None else (call,),
    )
    worked_ms = (lineage.get("queue_ms") or 0.0) + (lineage.get("inference_ms") or 0.0)
    if not lineage or not worked_ms:
        return
    called_ms = lineage.get("called_at")
    began_ms = max(accepted_ms, answered_ms - worked_ms) if called_ms is None else called_ms
    call_id = _id(f"{own_id:016x}", "call")
    yield Span(
        service,
        "inference.v1.InferenceService/Infer",
        SpanKind.CLIENT,
        trace_id,
        call_id,
        own_id,
        began_ms,
        max(began_ms, answered_ms),
        {"rpc.system.name": "grpc", "reviewmesh.task": task},
        error,
    )
    # Of the worker only durations are known. Its clock may differ, so they end with the call.
    inference_ms = lineage.get("inference_ms") or 0.0
    inferred_ms = max(began_ms, answered_ms - inference_ms)
    queued_ms = max(began_ms, inferred_ms - (lineage.get("queue_ms") or 0.0))
    yield Span(
        f"worker-{task}",
        "queue",
        SpanKind.INTERNAL,
        trace_id,
        _id(f"{call_id:016x}", "queue"),
        call_id,
        queued_ms,
        inferred_ms,
        {"reviewmesh.task": task},
    )
    yield Span(
        f"worker-{task}",
        f"inference {lineage.get('model') or ''}".strip(),
        SpanKind.INTERNAL,
        trace_id,
        _id(f"{call_id:016x}", "inference"),
        call_id,
        inferred_ms,
        max(inferred_ms, answered_ms),
        _gen_ai(task, lineage),
        error,
    )


def span_of_call(task: str, lineage: Mapping[str, Any], answered_ms: float) -> Span | None:
    """The gRPC call as a trace of its own, which the spans of all its items link to."""
    call = _call_of(lineage)
    if call is None or lineage.get("called_at") is None:
        return None
    trace_id, span_id = call
    return Span(
        f"enricher-{task}",
        "inference.v1.InferenceService/Infer",
        SpanKind.CLIENT,
        trace_id,
        span_id,
        None,
        lineage["called_at"],
        max(answered_ms, lineage["called_at"]),
        _known(
            {
                "rpc.system.name": "grpc",
                "reviewmesh.task": task,
                "reviewmesh.route": lineage.get("route"),
            }
        ),
    )


def span_of_dead_letter(letter: Mapping[str, Any], record: Record, context: TraceContext) -> Span:
    """What became of a record that was not enriched. `record`: where the letter was read from."""
    failed_ms = _first(letter["failed_at"], record.timestamp_ms)
    task = letter["stage"].removeprefix("enrich.")
    service = {"intake": "intake", "join": "joiner"}.get(letter["stage"], f"enricher-{task}")
    place = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
    return Span(
        service,
        f"process {letter['topic']}",
        SpanKind.CONSUMER,
        context.trace_id,
        _id(f"{context.trace_id:032x}", place, letter["stage"]),
        None if context.is_ours else context.parent_id,
        min(_first(letter["read_at"], failed_ms), failed_ms),
        failed_ms,
        _messaging("process", letter["topic"], letter["partition"])
        | {"messaging.kafka.offset": letter["offset"], "error.type": letter["cause"]}
        | _known({"reviewmesh.review_id": letter["review_id"]}),
        letter["message"] or letter["cause"],
    )


def _call_of(lineage: Mapping[str, Any]) -> tuple[int, int] | None:
    """Trace and span id of the gRPC call; None where the enricher did not tell."""
    call = lineage.get("call_id")
    if not call:
        return None
    digest = hashlib.sha256(f"call/{call}".encode()).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")


def _gen_ai(task: str, lineage: Mapping[str, Any]) -> Attributes:
    return _known(
        {
            "reviewmesh.task": task,
            "gen_ai.provider.name": lineage.get("provider") or lineage.get("engine"),
            "gen_ai.request.model": lineage.get("model"),
            "gen_ai.response.model": _named(lineage),
            "gen_ai.usage.input_tokens": lineage.get("prompt_tokens"),
            "gen_ai.usage.cache_read.input_tokens": lineage.get("cached_tokens"),
            "gen_ai.usage.output_tokens": lineage.get("completion_tokens"),
            "reviewmesh.model_digest": lineage.get("model_digest"),
            "reviewmesh.cost_micros": lineage.get("cost_micros"),
        }
    )


def _named(lineage: Mapping[str, Any]) -> str | None:
    model, version = lineage.get("model"), lineage.get("model_version")
    return f"{model}@{version}" if model and version else None


def _messaging(operation: str, topic: str | None, partition: int | None) -> Attributes:
    return {"messaging.system": "kafka", "messaging.operation.name": operation} | _known(
        {
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": None if partition is None else str(partition),
        }
    )


def _known(attributes: Mapping[str, str | int | float | bool | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _first(*values: float | None) -> float:
    return next((value for value in values if value is not None), 0.0)


def _id(*parts: str) -> int:
    """Not zero, which would be invalid."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1
