"""The join of one partition: complete records, or partial ones that name what is missing.

It does no I/O, and time is an argument. A restart rebuilds its state by reading from the committed
offsets, and from the open partial records. Results are matched to reviews by the accepted offset
that they carry.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from reviewmesh.join.enriched import ANSWERED, build, merge
from reviewmesh.join.matching import better_result, finished_by, finished_without_use, is_of
from reviewmesh.join.newer import Newer
from reviewmesh.join.progress import TaskProgress
from reviewmesh.join.published import Published
from reviewmesh.join.state import (
    AnswerAgain,
    Emission,
    JoinWindows,
    Partial,
    Pending,
    Questions,
    Result,
)
from reviewmesh.kafka.record import Headers
from reviewmesh_schemas.names import ACCEPTED, REPROCESSED, RESULT_OF, TASK_OF, TASKS

MAX_PARTIALS = 50_000
# Stale entries in the heap of deadlines; beyond this number the heap is rebuilt.
SPARE_DEADLINES = 10_000

ResultOf = tuple[str, str, str]
"""Task, review_id, and content_hash of the review."""


class PartitionJoin:
    def __init__(
        self,
        partition: int,
        windows: JoinWindows,
        is_ahead: Callable[[int], bool],
        position: Callable[[], int],
        published_until: int = 0,
        published: Published | None = None,
    ) -> None:
        """`is_ahead`: whether an accepted offset is not read yet. `position`: the next one to be
        read.

        `published_until`: the end of the partition of enriched reviews when this one was opened.
        Revisions count up from there. Each published record takes at least one offset, so the
        revisions of a review always rise, without any memory of earlier ones.
        """
        self._partition = partition
        self._windows = windows
        self._is_ahead = is_ahead
        self._position = position
        self._pending: dict[int, Pending] = {}
        # By accepted offset: results that came before their review. When the accepted topic was
        # created again, results of several reviews may have the same offset.
        self._early: dict[int, dict[ResultOf, tuple[int, Result]]] = {}
        self._early_of: Counter[str] = Counter()
        # Accepted offsets of early results when the end of the accepted topic was asked for.
        self._doubted: set[int] = set()
        self._versions: dict[str, deque[int]] = {}
        self._partials: dict[str, Partial] = {}
        self._partials_over: list[tuple[float, str, int]] = []
        self._revision = published_until
        self._published = published
        # While a campaign goes on.
        self.newer: Newer | None = None
        self._progress = {task: TaskProgress(windows.straggler_s) for task in TASKS}

    # -- inputs ------------------------------------------------------------------------------

    def keep_partial(self, partial: Partial) -> None:
        """Add an open partial record: just published, or read back when the partition was
        opened."""
        self._partials[partial.review_id] = partial
        over = (partial.over_at, partial.review_id, partial.accepted_offset)
        heapq.heappush(self._partials_over, over)
        if len(self._partials_over) > 2 * len(self._partials) + SPARE_DEADLINES:
            self._partials_over = sorted(
                (item.over_at, item.review_id, item.accepted_offset)
                for item in self._partials.values()
            )

    def accepted(
        self,
        offset: int,
        accepted: Mapping[str, Any],
        headers: Headers,
        replayed: bool,
        appended_at: float,
        now: float,
    ) -> list[Emission]:
        """`appended_at`: the record's Kafka timestamp, from which the deadline counts."""
        pending = Pending(
            offset=offset,
            accepted=accepted,
            headers=headers,
            replayed=replayed,
            appended_at=appended_at,
        )
        emissions = self._take_early(pending)
        why_not = self._published.why_not(offset, accepted) if self._published else ""
        if why_not:
            return [*emissions, self._not_repeated(pending, why_not)]
        self._pending[offset] = pending
        self._versions.setdefault(accepted["review_id"], deque()).append(offset)
        return emissions + self._emit_complete(accepted["review_id"], now)

    def _take_early(self, pending: Pending) -> list[Emission]:
        """Add results that came before their review; emits those that belong to another review."""
        emissions: list[Emission] = []
        for (task, *_), (offset, result) in self._pop_early(pending.offset).items():
            if is_of(result, pending.accepted):
                emissions += better_result(
                    pending.results, task, task=task, offset=offset, result=result
                )
            else:
                emissions.append(finished_without_use(task, offset, result, "foreign"))
        return emissions

    def result(self, task: str, offset: int, result: Result, now: float) -> list[Emission]:
        accepted_offset = result["accepted_offset"]
        # A result for a review far ahead says nothing about the reviews that wait.
        self._progress[task].result(min(accepted_offset, self._position()), now)
        pending = self._pending.get(accepted_offset)
        if pending is not None:
            if not is_of(result, pending.accepted):
                return [finished_without_use(task, offset, result, "foreign")]
            doubled = better_result(pending.results, task, task=task, offset=offset, result=result)
            return doubled + self._emit_complete(result["review_id"], now)
        if self._is_ahead(accepted_offset):
            early = self._early.setdefault(accepted_offset, {})
            key = (task, result["review_id"], result["content_hash"])
            self._early_of[task] += key not in early
            return better_result(early, key, task=task, offset=offset, result=result)
        return [self._late(task, offset, result, now)]

    # -- results whose review does not come --------------------------------------------------

    def _pop_early(self, accepted_offset: int) -> dict[ResultOf, tuple[int, Result]]:
        early = self._early.pop(accepted_offset, {})
        self._early_of.subtract(task for task, _, _ in early)
        return early

    def doubts_early(self) -> bool:
        """Whether the end of the accepted topic has to be asked for, because of early results.

        Reviews beyond that end whose results were here before the question never come.
        """
        if not self._doubted:
            self._doubted = set(self._early)
        return bool(self._doubted)

    def accepted_read_to_end(self) -> list[Emission]:
        """The accepted topic was read to the end that was asked for."""
        doubted, self._doubted = self._doubted, set()
        return self._drop_early(doubted)

    def _drop_early(self, accepted_offsets: set[int]) -> list[Emission]:
        return [
            finished_without_use(task, offset, result, "orphaned")
            for accepted_offset in sorted(accepted_offsets)
            for (task, *_), (offset, result) in self._pop_early(accepted_offset).items()
        ]

    def read_to_end(self, task: str, as_of: float) -> None:
        """All results that the task had written by `as_of` have been read."""
        self._progress[task].read_to_end_as_of = as_of

    # -- deadlines ---------------------------------------------------------------------------

    def finished_by_enricher(self, task: str, covers: Callable[[int], bool], now: float) -> None:
        """Take the offsets that the task's enricher has committed, together with their results."""
        bound = self._progress[task].straggler_bound
        for offset, pending in self._pending.items():
            if offset >= bound:
                break
            if task not in pending.results and covers(offset):
                pending.enriched_by.setdefault(task, now)

    def tick(self, now: float) -> tuple[list[Emission], Questions]:
        """Run the timers; returns emissions, and what must be known to decide more."""
        # The accepted offset of these results was skipped: deleted, or a transaction marker.
        position = self._position()
        emissions = self._drop_early({offset for offset in self._early if offset < position})
        ends: set[str] = set()
        ledgers: set[str] = set()
        self._forget_published()
        bound = max(progress.straggler_bound for progress in self._progress.values())
        for offset, pending in list(self._pending.items()):
            if now < pending.appended_at + self._windows.max_wait_s and offset >= bound:
                break
            versions = self._versions.get(pending.accepted["review_id"])
            if offset in self._pending and versions is not None and versions[0] == offset:
                open_tasks, unproven = self._undecided(pending, now)
                ends |= unproven
                # Later results have overtaken the review, which proves nothing: it may wait for an
                # earlier version, a worker or a retry. So ask what the enricher has finished.
                ledgers |= {
                    task
                    for task in open_tasks - unproven
                    if offset < self._progress[task].straggler_bound
                }
                if not open_tasks:
                    emissions.append(self._emit(pending, now))
                    emissions += self._emit_complete(pending.accepted["review_id"], now)
        emissions += self._close_partials(now)
        return emissions, Questions(frozenset(ends), frozenset(ledgers))

    def _forget_published(self) -> None:
        """Drop it once no review is read again any more."""
        if self._published is not None:
            oldest = next(iter(self._pending), self._position())
            if oldest >= self._published.until:
                self._published = None

    def _undecided(self, pending: Pending, now: float) -> tuple[set[str], set[str]]:
        """Missing tasks that may still answer, and those of them that only lack the proof of
        absence."""
        open_tasks: set[str] = set()
        unproven: set[str] = set()
        for task in pending.missing():
            since = self._late_since(pending, task, now)
            if since is None:
                open_tasks.add(task)
            elif not since <= self._progress[task].read_to_end_as_of <= now:
                # A moment that is still to come proves nothing: the clock was set back.
                open_tasks.add(task)
                unproven.add(task)
        return open_tasks, unproven

    def _late_since(self, pending: Pending, task: str, now: float) -> float | None:
        """Since when the result is no longer waited for; None while it is."""
        deadline = pending.appended_at + self._windows.max_wait_s
        if now >= deadline:
            return deadline
        since = pending.enriched_by.get(task)
        if since is not None and since > now:
            # The clock was set back.
            since = pending.enriched_by[task] = now
        return since

    # -- emitting ----------------------------------------------------------------------------

    def _emit_complete(self, review_id: str, now: float) -> list[Emission]:
        """Publish the complete versions of a review in order: each waits for the one before it."""
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
            accepted=pending.accepted,
            partition=self._partition,
            offset=pending.offset,
            results={task: result for task, (_, result) in pending.results.items()},
            revision=self._revision + 1,
            now_ms=int(now * 1000),
        )
        again = self._published
        if (
            again is not None
            and not record["complete"]
            and again.may_have_been_deleted(pending.offset, pending.appended_at)
        ):
            return self._not_repeated(pending, "unproven")
        is_first = not pending.replayed and (again is None or pending.offset >= again.until)
        return self._publish(record, pending.headers, finished_by(pending), is_first)

    def _not_repeated(self, pending: Pending, why: str) -> Emission:
        review_id = pending.accepted["review_id"]
        return Emission(review_id, finished_by(pending), not_repeated=why)

    def _publish(
        self,
        record: dict[str, Any],
        headers: Headers,
        finished: tuple[tuple[str, int], ...],
        is_first: bool = False,
        late: tuple[str, str] | None = None,
        again: tuple[str, str] | None = None,
    ) -> Emission:
        review_id = record["review_id"]
        self._revision += 1
        if self.newer is not None:
            self.newer.add(review_id, record["revision"])
        if not record["complete"]:
            self.keep_partial(Partial.of(record, headers, self._windows.late_window_s))
            partial = "write"
        else:
            erased = self._partials.pop(review_id, None) is not None
            partial = "erase" if erased else "leave"
        return Emission(
            review_id=review_id,
            finished=finished,
            enriched=record,
            headers=headers,
            partial=partial,
            late=late,
            is_first=is_first,
            again=again,
        )

    # -- answers done again ------------------------------------------------------------------

    def again(self, again: AnswerAgain, now: float) -> Emission:
        """The enriched review with this answer in it, unless anything newer of it is known.

        `newer` must cover what came since the campaign chose. A version that is still pending is
        newer, too. One that was not read yet comes out later, as a higher revision.
        """
        review_id = again.enriched["review_id"]
        finished = ((REPROCESSED, again.offset),)
        assert self.newer is not None, "expected to know what came since the campaign chose"
        revision = again.enriched["revision"]
        if review_id in self._versions or self.newer.has_newer(review_id, revision):
            return Emission(review_id, finished, again=(again.task, "superseded"))
        if self.newer.is_full:
            return Emission(review_id, finished, again=(again.task, "unproven"))
        if again.result["status"] not in ANSWERED:
            return Emission(review_id, finished, again=(again.task, "failed"))
        record = merge(
            again.enriched, {again.task: again.result}, self._revision + 1, int(now * 1000)
        )
        return self._publish(record, again.headers, finished, again=(again.task, "published"))

    # -- late results and partial records ----------------------------------------------------

    def _late(self, task: str, offset: int, result: Result, now: float) -> Emission:
        partial = self._partials.get(result["review_id"])
        if (
            partial is None
            or partial.accepted_offset != result["accepted_offset"]
            or partial.content_hash != result["content_hash"]
            or task not in partial.open_tasks
        ):
            return finished_without_use(task, offset, result, "dropped")
        record = merge(partial.record(), {task: result}, self._revision + 1, int(now * 1000))
        finished = ((RESULT_OF[task], offset),)
        return self._publish(record, partial.headers, finished, late=(task, "merged"))

    def _close_partials(self, now: float) -> list[Emission]:
        """Erase expired partial records, and the oldest ones beyond the limit."""
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
        """Whether this input is too far ahead. A task that the oldest review lacks is never
        blocked.

        `room`: how many reviews, and how many early results of a task, may wait here.

        A review that waits long for one result does not block the others: they are published and
        leave no state. Memory is used by waiting reviews and by early results.
        """
        if topic == ACCEPTED:
            return len(self._pending) >= room
        task = TASK_OF[topic]
        oldest = next(iter(self._pending.values()), None)
        if oldest is not None and task not in oldest.results:
            return False
        return self._early_of[task] >= room

    def waits_for(self) -> str:
        """What unpublished reviews wait for; empty when none does."""
        missing = {task for pending in self._pending.values() for task in pending.missing()}
        if missing:
            return f"results of {', '.join(sorted(missing))} for {len(self._pending)} reviews"
        return "accepted reviews that results came before" if self._early else ""

    @property
    def open_partials(self) -> int:
        return len(self._partials)
