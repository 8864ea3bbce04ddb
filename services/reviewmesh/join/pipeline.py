"""The join of one partition: complete, or saying what is missing. Pure; time is an argument.

Its state is what a restart rebuilds by reading again from the committed offsets, and the partial
records that are still open. Results are matched by the accepted offset that they carry.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reviewmesh.join.enriched import TASKS, TIMEOUT, build, merge
from reviewmesh.join.progress import TaskProgress
from reviewmesh.runtime.record import Headers

ACCEPTED = "reviews.accepted"
RESULT_TOPICS = {f"reviews.{task}": task for task in TASKS}
TOPIC_OF = {task: topic for topic, task in RESULT_TOPICS.items()}

MAX_PARTIALS = 50_000
REMEMBERED_REVISIONS = 20_000

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Windows:
    max_wait_s: float
    straggler_s: float
    late_window_s: float


@dataclass(frozen=True, slots=True)
class Emission:
    """What one step of the join decides; all of it belongs into one transaction."""

    review_id: str
    finished: tuple[tuple[str, int], ...]
    enriched: dict[str, Any] | None = None
    headers: Headers = ()
    # Whether the open partial record of this review is to be written, erased or left alone.
    partial: str = "leave"
    dropped_task: str | None = None


@dataclass(slots=True)
class Pending:
    """An accepted review that is not out yet."""

    offset: int
    accepted: Mapping[str, Any]
    headers: Headers
    # Sent again by an operator to this topic itself.
    replayed: bool
    appended_at: float
    results: dict[str, tuple[int, Result]] = field(default_factory=dict)
    overtaken_at: dict[str, float] = field(default_factory=dict)

    def missing(self) -> list[str]:
        return [task for task in TASKS if task not in self.results]


@dataclass(slots=True)
class Partial:
    """A published record that lacks an answer."""

    accepted_offset: int
    record: dict[str, Any]
    headers: Headers
    over_at: float


class PartitionJoin:
    def __init__(
        self,
        partition: int,
        windows: Windows,
        is_ahead: Callable[[int], bool],
        position: Callable[[], int],
    ) -> None:
        """`is_ahead` tells whether an accepted offset is still to be read, `position` the next."""
        self._partition = partition
        self._windows = windows
        self._is_ahead = is_ahead
        self._position = position
        self._pending: dict[int, Pending] = {}
        self._early: dict[int, dict[str, tuple[int, Result]]] = {}
        self._versions: dict[str, deque[int]] = {}
        self._partials: dict[str, Partial] = {}
        self._partials_over: list[tuple[float, str, int]] = []
        self._revisions: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._progress = {task: TaskProgress(windows.straggler_s) for task in TASKS}

    # -- what comes in -----------------------------------------------------------------------

    def restore_partial(self, record: dict[str, Any], headers: Headers = ()) -> None:
        """An open partial record, read back when the partition is opened."""
        self._keep_partial(record, headers)

    def forget_partial(self, review_id: str) -> None:
        self._partials.pop(review_id, None)

    def accepted(
        self,
        offset: int,
        accepted: Mapping[str, Any],
        headers: Headers,
        replayed: bool,
        appended_at: float,
        now: float,
    ) -> list[Emission]:
        """`appended_at` is Kafka's own time of the record; the deadline counts from it."""
        pending = Pending(
            offset,
            accepted,
            headers,
            replayed,
            appended_at,
            self._early.pop(offset, {}),
        )
        self._pending[offset] = pending
        self._versions.setdefault(accepted["review_id"], deque()).append(offset)
        return self._emit_complete(accepted["review_id"], now)

    def result(self, task: str, offset: int, result: Result, now: float) -> list[Emission]:
        accepted_offset = result["accepted_offset"]
        self._progress[task].result(accepted_offset, now)
        pending = self._pending.get(accepted_offset)
        if pending is not None:
            pending.results[task] = (offset, result)
            return self._emit_complete(result["review_id"], now)
        if self._is_ahead(accepted_offset):
            self._early.setdefault(accepted_offset, {})[task] = (offset, result)
            return []
        return [self._late(task, offset, result, now)]

    def read_to_end(self, task: str, as_of: float) -> None:
        """All results that the task had written by `as_of` have been taken in."""
        progress = self._progress[task]
        progress.read_to_end_as_of = max(progress.read_to_end_as_of, as_of)

    # -- deadlines ---------------------------------------------------------------------------

    def tick(self, now: float) -> tuple[list[Emission], set[str]]:
        """What time alone decides, and the tasks whose end must be known to decide more."""
        emissions: list[Emission] = []
        unproven: set[str] = set()
        bound = max(progress.straggler_bound for progress in self._progress.values())
        for offset, pending in list(self._pending.items()):
            if now < pending.appended_at + self._windows.max_wait_s and offset >= bound:
                break
            if offset in self._pending and self._is_first_version(pending):
                open_tasks, unknown = self._undecided(pending, now)
                unproven |= unknown
                if not open_tasks:
                    emissions.append(self._emit(pending, now))
                    emissions += self._emit_complete(pending.accepted["review_id"], now)
        emissions += self._close_partials(now)
        return emissions, unproven

    def _is_first_version(self, pending: Pending) -> bool:
        return self._versions[pending.accepted["review_id"]][0] == pending.offset

    def _undecided(self, pending: Pending, now: float) -> tuple[set[str], set[str]]:
        """Missing tasks that may still answer in time, and those of them only unproven."""
        open_tasks: set[str] = set()
        unproven: set[str] = set()
        for task in pending.missing():
            since = self._late_since(pending, task, now)
            if since is None:
                open_tasks.add(task)
            elif self._progress[task].read_to_end_as_of < since:
                open_tasks.add(task)
                unproven.add(task)
        return open_tasks, unproven

    def _late_since(self, pending: Pending, task: str, now: float) -> float | None:
        deadline = pending.appended_at + self._windows.max_wait_s
        if now >= deadline:
            return deadline
        if pending.offset < self._progress[task].straggler_bound:
            return pending.overtaken_at.setdefault(task, now)
        return None

    # -- emitting ----------------------------------------------------------------------------

    def _emit_complete(self, review_id: str, now: float) -> list[Emission]:
        """Versions of a review come out in order: each waits for the one before it."""
        emissions = []
        versions = self._versions.get(review_id)
        while versions:
            pending = self._pending[versions[0]]
            if pending.missing():
                break
            emissions.append(self._emit(pending, now))
        return emissions

    def _emit(self, pending: Pending, now: float) -> Emission:
        review_id = pending.accepted["review_id"]
        del self._pending[pending.offset]
        versions = self._versions[review_id]
        versions.popleft()
        if not versions:
            del self._versions[review_id]
        record = build(
            pending.accepted,
            self._partition,
            pending.offset,
            {task: result for task, (_, result) in pending.results.items()},
            self._revision(pending),
            int(now * 1000),
        )
        finished = [(ACCEPTED, pending.offset)]
        finished += [(TOPIC_OF[task], offset) for task, (offset, _) in pending.results.items()]
        return self._publish(record, pending.headers, tuple(finished))

    def _publish(
        self, record: dict[str, Any], headers: Headers, finished: tuple[tuple[str, int], ...]
    ) -> Emission:
        review_id = record["review_id"]
        self._remember(record)
        if not record["complete"]:
            self._keep_partial(record, headers)
            return Emission(review_id, finished, record, headers, "write")
        erased = self._partials.pop(review_id, None) is not None
        return Emission(review_id, finished, record, headers, "erase" if erased else "leave")

    def _revision(self, pending: Pending) -> int:
        review_id, content_hash = pending.accepted["review_id"], pending.accepted["content_hash"]
        partial = self._partials.get(review_id)
        if partial is not None and partial.record["content_hash"] == content_hash:
            return int(partial.record["revision"]) + 1
        known = self._revisions.get((review_id, content_hash))
        if known is not None:
            return known + 1
        # A replay of an accepted review was out before, even where its record is forgotten; a
        # replay of a raw record was counted by intake.
        first = int(pending.accepted["acceptance"])
        return max(first, 2) if pending.replayed else first

    def _remember(self, record: Mapping[str, Any]) -> None:
        key = (record["review_id"], record["content_hash"])
        self._revisions.pop(key, None)
        self._revisions[key] = record["revision"]
        while len(self._revisions) > REMEMBERED_REVISIONS:
            self._revisions.popitem(last=False)

    # -- late results and partial records ----------------------------------------------------

    def _late(self, task: str, offset: int, result: Result, now: float) -> Emission:
        review_id = result["review_id"]
        finished = ((TOPIC_OF[task], offset),)
        partial = self._partials.get(review_id)
        if (
            partial is None
            or partial.accepted_offset != result["accepted_offset"]
            or partial.record["tasks"][task]["status"] != TIMEOUT
        ):
            return Emission(review_id, finished, dropped_task=task)
        record = merge(
            partial.record, {task: result}, partial.record["revision"] + 1, int(now * 1000)
        )
        return self._publish(record, partial.headers, finished)

    def _keep_partial(self, record: dict[str, Any], headers: Headers) -> None:
        over_at = record["timings"]["enriched_at"] / 1000 + self._windows.late_window_s
        offset = record["accepted_offset"]
        self._partials[record["review_id"]] = Partial(offset, record, headers, over_at)
        heapq.heappush(self._partials_over, (over_at, record["review_id"], offset))

    def _close_partials(self, now: float) -> list[Emission]:
        """Erase partial records that are over, and the oldest ones beyond the limit."""
        emissions = []
        while self._partials_over:
            over_at, review_id, offset = self._partials_over[0]
            if over_at > now and len(self._partials) <= MAX_PARTIALS:
                break
            heapq.heappop(self._partials_over)
            partial = self._partials.get(review_id)
            if partial is not None and partial.accepted_offset == offset:
                del self._partials[review_id]
                emissions.append(Emission(review_id, (), partial="erase"))
        return emissions

    # -- backpressure ------------------------------------------------------------------------

    def blocks(self, topic: str, room: int) -> bool:
        """Whether this input ran ahead. What the oldest review lacks is never blocked.

        `room` is how many reviews may wait here, and how far results may be ahead of them.

        A review that waits long for one result must not stop the others: they come out and leave
        nothing here. What fills the memory is reviews that wait and results of reviews not read.
        """
        if topic == ACCEPTED:
            return len(self._pending) >= room
        task = RESULT_TOPICS[topic]
        oldest = next(iter(self._pending.values()), None)
        if oldest is not None and task not in oldest.results:
            return False
        return self._progress[task].furthest - self._position() >= room

    def waits_for(self) -> str:
        """What the reviews that are not out wait for; empty when none does."""
        missing = {task for pending in self._pending.values() for task in pending.missing()}
        if missing:
            return f"results of {', '.join(sorted(missing))} for {len(self._pending)} reviews"
        return "accepted reviews that results came before" if self._early else ""

    @property
    def open_partials(self) -> int:
        return len(self._partials)
