"""The steps of the topology, the same for every peer."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from reviewmesh.enrich.results import lineage_of, payload
from reviewmesh.intake.normalise import normalise
from reviewmesh.join.enriched import build
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_schemas.names import RAW

CALL_TIMEOUT_S = 60.0


def now_ms() -> int:
    return int(time.time() * 1000)


def worker_of(task: str) -> str:
    """The worker's address, from the setting that the mesh reads too."""
    return os.environ[f"REVIEWMESH_WORKERS__{task.upper()}"]


def accept(
    review: dict[str, Any], partition: int, offset: int, timestamp_ms: int
) -> dict[str, Any]:
    return {
        **normalise(review, ()),
        "accepted_at": now_ms(),
        "source_topic": RAW,
        "source_partition": partition,
        "source_offset": offset,
        "source_timestamp": timestamp_ms,
        "acceptance": 1,
        "erased_at": None,
    }


def request(task: str, accepted: Mapping[str, Any]) -> inference_pb2.InferRequest:
    item = inference_pb2.Item(
        id="0", text=accepted["text"] or "", language=accepted["language"] or ""
    )
    return inference_pb2.InferRequest(task=task, items=[item])


def result(
    task: str,
    accepted: Mapping[str, Any],
    partition: int,
    offset: int,
    answer: inference_pb2.InferResponse,
) -> dict[str, Any]:
    outcome = answer.results[0]
    output = getattr(outcome, str(outcome.WhichOneof("outcome")))
    return {
        "review_id": accepted["review_id"],
        "content_hash": accepted["content_hash"],
        "accepted_partition": partition,
        "accepted_offset": offset,
        "lineage": lineage_of(answer.lineage, outcome.usage, 1),
        "produced_at": now_ms(),
        "status": "OK",
        "error": None,
        **payload(task, output, accepted["text"] or ""),
    }


def enriched(
    accepted: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    any_result = next(iter(results.values()))
    return build(
        accepted,
        any_result["accepted_partition"],
        any_result["accepted_offset"],
        results,
        1,
        now_ms(),
    )
