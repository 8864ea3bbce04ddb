"""Builds the enriched record from an accepted review and the results of its tasks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reviewmesh_schemas.names import TASKS

ANSWERED = ("OK", "FALLBACK")
TIMEOUT = "TIMEOUT"
ACCEPTED_FIELDS = (
    "review_id",
    "content_hash",
    "business_id",
    "text",
    "title",
    "language",
    "stars",
    "created_at",
    "source",
    "attributes",
    "accepted_at",
    "source_topic",
    "source_partition",
    "source_offset",
    "source_timestamp",
    "acceptance",
    "erased_at",
)


def build(
    accepted: Mapping[str, Any],
    partition: int,
    offset: int,
    results: Mapping[str, Mapping[str, Any]],
    revision: int,
    now_ms: int,
) -> dict[str, Any]:
    """An EnrichedReview from the results so far; a task without a result is TIMEOUT."""
    record: dict[str, Any] = {name: accepted[name] for name in ACCEPTED_FIELDS}
    record.update(
        accepted_partition=partition,
        accepted_offset=offset,
        entities=[],
        topics=[],
        sentiment=None,
        tasks={
            task: {
                "status": TIMEOUT,
                "error": "no result before the deadline",
                "lineage": None,
            }
            for task in TASKS
        },
        timings={
            "origin_at": accepted["source_timestamp"],
            "accepted_at": accepted["accepted_at"],
            "ner_at": None,
            "topic_at": None,
            "sentiment_at": None,
            "enriched_at": None,
        },
    )
    return merge(record, results, revision, now_ms)


def merge(
    record: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    revision: int,
    now_ms: int,
) -> dict[str, Any]:
    """A copy of the record as `revision`, with these results added."""
    merged = dict(record)
    merged["tasks"] = dict(record["tasks"])
    merged["timings"] = dict(record["timings"])
    for task, result in results.items():
        merged["tasks"][task] = {
            "status": result["status"],
            "error": result["error"],
            "lineage": result["lineage"],
        }
        merged["timings"][f"{task}_at"] = result["produced_at"]
        if task == "ner":
            merged["entities"] = result["entities"]
        elif task == "topic":
            merged["topics"] = result["topics"]
        else:
            merged["sentiment"] = result["sentiment"]
    merged["revision"] = revision
    merged["complete"] = all(outcome["status"] in ANSWERED for outcome in merged["tasks"].values())
    merged["timings"]["enriched_at"] = now_ms
    merged.update(_at_a_glance(merged))
    return merged


def _at_a_glance(record: Mapping[str, Any]) -> dict[str, Any]:
    """What readers of flat columns look for first, as it stands deeper in the record."""
    sentiment = record["sentiment"] or {"label": None, "scores": {}}
    lineages = [record["tasks"][task]["lineage"] or {} for task in TASKS]
    detected = [lineage["language"] for lineage in lineages if lineage.get("language")]
    measured = [
        lineage["language_measured"]
        for lineage in lineages
        if lineage.get("language_measured") is not None
    ]
    return {
        "sentiment_label": sentiment["label"],
        "sentiment_score": sentiment["scores"].get(sentiment["label"]),
        "language_detected": detected[0] if detected else None,
        "language_measured": all(measured) if measured else None,
    }


def trace_reason(record: Mapping[str, Any]) -> str:
    """Why a published review is always traced; empty where it is one like most."""
    outcomes = record["tasks"].values()
    statuses = {outcome["status"] for outcome in outcomes}
    lineages = [outcome["lineage"] or {} for outcome in outcomes]
    if "FAILED" in statuses:
        return "failed"
    if not record["complete"]:
        return "partial"
    if "FALLBACK" in statuses:
        return "fallback"
    return "canary" if any(lineage.get("rollout") for lineage in lineages) else ""


def fit(record: dict[str, Any], max_bytes: int, encode: Callable[[dict[str, Any]], bytes]) -> bytes:
    """Encode within `max_bytes`; an accepted review without answers always fits.

    Entities and topics with the lowest scores are left out first. Where that is not enough, the
    results are not from a worker of the mesh: the review comes out without answers.
    """
    value = encode(record)
    for field in ("entities", "topics"):
        while len(value) > max_bytes and record[field]:
            ranked = sorted(record[field], key=lambda item: -item["score"])
            chosen = ranked[: len(ranked) // 2]
            if field == "entities":
                chosen.sort(key=lambda item: item["start"])
            record[field] = chosen
            value = encode(record)
    if len(value) > max_bytes:
        failed = {"status": "FAILED", "error": "the answer is too large", "lineage": None}
        record.update(sentiment=None, complete=False, tasks={task: dict(failed) for task in TASKS})
        record.update(_at_a_glance(record))
        value = encode(record)
    return value
