"""Builds the requests of calls from jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from reviewmesh.enrich.items import Job
from reviewmesh.leaving.amounts import Amount
from reviewmesh_protos.inference.v1 import inference_pb2

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def request_fields(
    task: str, batch: Sequence[Job], lane: inference_pb2.Lane.ValueType, bound: Amount
) -> dict[str, Any]:
    """Of an InferRequest or an InferStreamRequest; an item's id is its index.

    `bound`: the most that an item may take; 0 leaves it to the worker.
    """
    return {
        "task": task,
        "lane": lane,
        "max_provider_requests": bound.requests,
        "max_tokens": bound.tokens,
        "max_cost_micros": bound.micros,
        "items": [
            inference_pb2.Item(
                id=str(index),
                text=job.item.text,
                language=job.item.language,
                traceparent=_valid_trace(job),
            )
            for index, job in enumerate(batch)
        ],
    }


def metadata_of(batch: Sequence[Job]) -> tuple[tuple[str, str], ...]:
    """A call's metadata has room for one trace: its first item's. Each item carries its own too."""
    first = next(filter(None, map(_valid_trace, batch)), "")
    return (("traceparent", first),) if first else ()


def _valid_trace(job: Job) -> str:
    """Producers may write anything into a header, and gRPC fails a call with invalid metadata."""
    trace = job.item.traceparent or ""
    return trace if TRACEPARENT.fullmatch(trace) else ""
