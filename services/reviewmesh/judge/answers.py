"""The part of a result that the judge uses: labels, failure, latency and cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ALL = "all"
"""The slice of every review."""

ReviewKey = tuple[int, int]
"""Partition and offset of the accepted review."""
"""Partition and offset of the accepted review."""


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """An answer of the task's own workers or of the candidate."""

    key: ReviewKey
    language: str
    """The primary language, such as `da`; empty if it is not known."""
    outcome: frozenset[str] | None
    """The part of the answer that is compared; None if the task failed. See `outcome_of`."""
    labels: frozenset[str]
    """The labels of the answer, without their offsets."""
    latency_ms: float | None
    route: str
    rollout: str | None
    candidate_error: str | None
    model: str | None = None
    """NAME@VERSION."""
    cost_micros: int | None = None
    """Cost in millionths of a US dollar; None if it is not reported or the task failed."""


def judged_answer(task: str, result: Mapping[str, Any]) -> JudgedAnswer:
    lineage = result["lineage"] or {}
    has_failed = result["status"] not in ("OK", "FALLBACK")
    return JudgedAnswer(
        key=(result["accepted_partition"], result["accepted_offset"]),
        language=language_of(result["language"]),
        outcome=None if has_failed else outcome_of(task, result),
        labels=frozenset() if has_failed else labels(task, result),
        latency_ms=None if has_failed else _latency_ms(lineage),
        route=lineage.get("route") or "",
        rollout=lineage.get("rollout"),
        candidate_error=lineage.get("candidate_error"),
        model=f"{lineage['model']}@{lineage['model_version']}" if lineage.get("model") else None,
        cost_micros=None if has_failed else lineage.get("cost_micros"),
    )


def _latency_ms(lineage: Mapping[str, Any]) -> float | None:
    """Milliseconds in queue and inference; None if not reported. Some engines have no queue."""
    inference_ms = lineage.get("inference_ms")
    return None if inference_ms is None else inference_ms + (lineage.get("queue_ms") or 0.0)


def language_of(tag: str | None) -> str:
    return (tag or "").replace("_", "-").split("-")[0].lower()


def outcome_of(task: str, fields: Mapping[str, Any]) -> frozenset[str]:
    """Two answers agree if their outcomes are equal; scores and polarities do not count."""
    if task == "ner":
        return frozenset(f"{e['start']}:{e['end']}:{e['label']}" for e in fields["entities"])
    return labels(task, fields)


def labels(task: str, fields: Mapping[str, Any]) -> frozenset[str]:
    if task == "ner":
        return frozenset(entity["label"] for entity in fields["entities"])
    if task == "topic":
        return frozenset(topic["id"] for topic in fields["topics"])
    sentiment = fields["sentiment"]
    return frozenset() if sentiment is None else frozenset([sentiment["label"]])
