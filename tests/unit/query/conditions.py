"""Enriched records as the joiner builds them, for conditions to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reviewmesh.join.enriched import build

NOW_MS = 1_796_040_000_000
"""2026-11-30T12:00:00Z."""
MINUTE = 60_000
DAY = 86_400_000


def lineage(task: str, **given: Any) -> dict[str, Any]:
    return {
        "task": task,
        "engine": "onnx",
        "model": "e5-reviews",
        "model_version": "2",
        "model_digest": "sha256:0a",
        "attempts": 1,
        "queue_ms": 0.5,
        "inference_ms": 2.5,
        "route": "primary",
        "prompt_version": None,
        "prompt_tokens": None,
        "cached_tokens": None,
        "completion_tokens": None,
        "cost_micros": None,
        **given,
    }


def result(task: str, status: str = "OK", **given: Any) -> dict[str, Any]:
    """Of one task; what is given goes into its lineage, which a failure has not."""
    answered = status in ("OK", "FALLBACK")
    return {
        "status": status,
        "error": None if answered else "the model gave no answer",
        "lineage": lineage(task, **given) if answered else None,
        "produced_at": NOW_MS - MINUTE,
        "entities": [],
        "topics": [],
        "sentiment": None,
    }


def enriched(
    results: Mapping[str, Mapping[str, Any]] | None = None, **given: Any
) -> dict[str, Any]:
    """A record; without results all tasks answered. What is given are fields of the review."""
    accepted = {
        "review_id": "r-1",
        "content_hash": "c0",
        "business_id": "b-1",
        "text": "Anna was great.",
        "title": None,
        "language": "da-DK",
        "stars": 4.0,
        "created_at": None,
        "source": "web",
        "attributes": {},
        "accepted_at": NOW_MS - DAY,
        "source_topic": "reviews.raw",
        "source_partition": 0,
        "source_offset": 7,
        "source_timestamp": NOW_MS - DAY,
        "acceptance": 1,
        "erased_at": None,
        **given,
    }
    if results is None:
        results = {task: result(task) for task in ("ner", "topic", "sentiment")}
    return build(accepted, 0, 7, results, revision=3, now_ms=NOW_MS)
