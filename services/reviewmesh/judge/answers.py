"""What the judge uses of a result: the labels, whether it failed, what it took and cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ALL = "all"
"""The slice of every review."""

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """An answer, of the task's own workers or of the candidate."""

    place: Place
    """Partition and offset of the accepted review."""
    language: str
    """The primary language, such as `da`; empty where it is not known."""
    said: frozenset[str] | None
    """None where the task failed."""
    labels: frozenset[str]
    """The labels of the answer, without their offsets."""
    ms: float | None
    route: str
    rollout: str | None
    candidate_error: str | None
    model: str | None = None
    """NAME@VERSION."""
    micros: int | None = None
    """What it cost, in millionths of a US dollar; None where nobody told, or the task failed."""


def seen(task: str, result: Mapping[str, Any]) -> JudgedAnswer:
    lineage = result["lineage"] or {}
    has_failed = result["status"] not in ("OK", "FALLBACK")
    return JudgedAnswer(
        place=(result["accepted_partition"], result["accepted_offset"]),
        language=language_of(result["language"]),
        said=None if has_failed else said(task, result),
        labels=frozenset() if has_failed else labels(task, result),
        ms=None if has_failed else _time(lineage),
        route=lineage.get("route") or "",
        rollout=lineage.get("rollout"),
        candidate_error=lineage.get("candidate_error"),
        model=f"{lineage['model']}@{lineage['model_version']}" if lineage.get("model") else None,
        micros=None if has_failed else lineage.get("cost_micros"),
    )


def _time(lineage: Mapping[str, Any]) -> float | None:
    """Not every engine has a queue to tell of."""
    inference_ms = lineage.get("inference_ms")
    return None if inference_ms is None else inference_ms + (lineage.get("queue_ms") or 0.0)


def language_of(tag: str | None) -> str:
    return (tag or "").replace("_", "-").split("-")[0].lower()


def said(task: str, fields: Mapping[str, Any]) -> frozenset[str]:
    """Two answers agree if these are equal; scores and polarities do not count."""
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
