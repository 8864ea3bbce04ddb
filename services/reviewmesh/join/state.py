"""What the join of a partition is given, what it holds, and what it returns."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reviewmesh.join.enriched import TIMEOUT
from reviewmesh.kafka.record import Headers
from reviewmesh_schemas.names import TASKS

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JoinWindows:
    max_wait_s: float
    straggler_s: float
    late_window_s: float


@dataclass(frozen=True, slots=True)
class Emission:
    """The outcome of one step of the join, to be written in one transaction."""

    review_id: str
    finished: tuple[tuple[str, int], ...]
    enriched: dict[str, Any] | None = None
    headers: Headers = ()
    # What to do with the open partial record of this review: "write", "erase" or "leave".
    partial: str = "leave"
    # A result that no review waited for: (task, outcome), see the metric of late results.
    late: tuple[str, str] | None = None
    # Why an accepted review is not published from here, see `Published`.
    not_repeated: str = ""
    # Not a merge, a replay or a review read again: its latency is measured.
    is_first: bool = False
    # An answer done again, by its task, and what became of it.
    again: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AnswerAgain:
    """An answer done again, with the enriched review that a campaign made it from."""

    offset: int
    task: str
    enriched: Mapping[str, Any]
    result: Result
    headers: Headers
    # End offset of enriched reviews when the campaign chose its reviews.
    enriched_since: int


@dataclass(slots=True)
class Pending:
    """An accepted review that is not published yet."""

    offset: int
    accepted: Mapping[str, Any]
    headers: Headers
    # A replay that was sent to the accepted topic.
    replayed: bool
    appended_at: float
    results: dict[str, tuple[int, Result]] = field(default_factory=dict)
    # By task: when the enricher was known to have finished this review. Its result, if any, was
    # written before that.
    enriched_by: dict[str, float] = field(default_factory=dict)

    def missing(self) -> list[str]:
        return [task for task in TASKS if task not in self.results]


@dataclass(frozen=True, slots=True)
class Questions:
    """What must be known before reviews may be published without the answers of these tasks."""

    # Tasks whose result partition's end is needed.
    ends: frozenset[str] = frozenset()
    # Tasks whose enricher's finished offsets are needed.
    ledgers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Partial:
    """A published record that lacks an answer. Compressed: there may be many, and few are
    completed."""

    review_id: str
    content_hash: str
    accepted_offset: int
    # The tasks whose late answers are still merged.
    open_tasks: frozenset[str]
    over_at: float
    headers: Headers
    packed: bytes

    @classmethod
    def of(cls, record: Mapping[str, Any], headers: Headers, late_window_s: float) -> Partial:
        return cls(
            record["review_id"],
            record["content_hash"],
            record["accepted_offset"],
            frozenset(task for task in TASKS if record["tasks"][task]["status"] == TIMEOUT),
            record["timings"]["enriched_at"] / 1000 + late_window_s,
            headers,
            zlib.compress(json.dumps(record).encode(), 1),
        )

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(zlib.decompress(self.packed))
        return record
