"""Which result belongs to which accepted review, and which offsets are finished with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from reviewmesh.join.enriched import ANSWERED
from reviewmesh.join.state import Emission, Pending, Result
from reviewmesh_schemas.names import ACCEPTED, RESULT_OF

Key = TypeVar("Key")


def is_of(result: Result, accepted: Mapping[str, Any]) -> bool:
    """Whether the result is of this content: a topic that was created again reuses its offsets.

    An enricher that could not read the review knows only its key.
    """
    return bool(
        result["review_id"] == accepted["review_id"]
        and result["content_hash"] in (accepted["content_hash"], "")
    )


def finished_by(pending: Pending) -> tuple[tuple[str, int], ...]:
    results = ((RESULT_OF[task], offset) for task, (offset, _) in pending.results.items())
    return ((ACCEPTED, pending.offset), *results)


def finished_without_use(task: str, offset: int, result: Result, outcome: str) -> Emission:
    return Emission(result["review_id"], ((RESULT_OF[task], offset),), late=(task, outcome))


def better_result(
    results: dict[Key, tuple[int, Result]], key: Key, task: str, offset: int, result: Result
) -> list[Emission]:
    """Keep one result per review and task: the first, unless only the second is an answer.

    An enricher that was reset infers again. The offset of the dropped result is finished too.
    """
    known = results.get(key)
    if known is None:
        results[key] = (offset, result)
        return []
    other = (offset, result)
    if known[1]["status"] not in ANSWERED and result["status"] in ANSWERED:
        results[key], other = other, known
    return [finished_without_use(task, *other, "doubled")]
