"""Reviews that the candidate of a rollout answers, and those that it answers as well.

A canary is given to the candidate in place of the task's own workers. If it fails, or does not
answer in time, they get it, and the result says why. A copy costs nobody anything: it is dropped
where the candidate has no room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from reviewmesh import metrics
from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.items import Answer, WorkItem, used_in_all
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.pool import PoolOf
from reviewmesh.enrich.rollouts import Part, Rollout, Rollouts
from reviewmesh.enrich.routes import CANDIDATE, Known, Limits, choose
from reviewmesh.enrich.shadow import ShadowTopic
from reviewmesh_protos.inference.v1 import inference_pb2

LOOK_EVERY_S = 0.25
COPIES_AT_ONCE = 256
# Until then it is no failure of the candidate that none of its workers was found to serve.
SETTLED_AFTER_S = 10.0
COPY_PATIENCE_S = 60.0
BATCH_ITEMS = 32
BATCH_BYTES = 1024 * 1024
LONGEST_ERROR = 500
NOT_SERVING = "no worker with the candidate serves"
FOR_EVER = Limits(float("inf"), float("inf"))

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CandidatePlan:
    """Where a task's candidate is, and what becomes of its answers."""

    canary: PoolOf
    shadow: PoolOf
    rollouts: Rollouts
    topic: ShadowTopic
    patience_s: float


@dataclass(slots=True, eq=False)
class Asked:
    """A review that the candidate has."""

    item: WorkItem
    rollout: str
    since: float
    """By the event loop's clock."""
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A canary that the task's own workers have, after the candidate."""

    token: object
    rollout: str
    error: str
    answer: Answer | None = None
    """What it failed with; None where it was not asked, or not done."""


class Candidate:
    """Lives in the event loop of the primary's calls."""

    def __init__(
        self,
        plan: CandidatePlan,
        to_primary: Callable[[Sequence[WorkItem]], None],
        on_finished: Callable[[WorkItem, Answer], None],
    ) -> None:
        self._task = plan.canary.task
        self._plan = plan
        self._to_primary = to_primary
        self._on_finished = on_finished
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(task=self._task)
        self._asked: dict[Place, Asked] = {}
        self._failed: dict[Place, Failed] = {}
        self._copies: dict[Place, Asked] = {}
        canaries = Jobs(BATCH_ITEMS, BATCH_BYTES, self._canary_answered)
        self._canary = Calls(plan.canary, canaries, plan.patience_s, max_attempts=1)
        self._shadow = Calls(
            plan.shadow,
            Jobs(BATCH_ITEMS, BATCH_BYTES, self._copy_answered),
            COPY_PATIENCE_S,
            max_attempts=1,
            lane=inference_pb2.LANE_BACKFILL,
        )
        for outcome in ("answered", "dropped"):
            metrics.SHADOWED.labels(self._task, outcome)
        for outcome in ("answered", "failed", "taken_back"):
            metrics.CANARIES.labels(self._task, outcome)
        self._began = self._loop.time()
        self._looking = self._loop.create_task(self._look_for_ever())

    async def close(self) -> None:
        self._looking.cancel()
        await self._canary.close()
        await self._shadow.close()
        await asyncio.to_thread(self._plan.topic.close)

    def take(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Give the candidate what is for it; returns what is for the task's own workers."""
        rollout = self._plan.rollouts.now()
        if rollout is None:
            return list(items)
        rest = []
        for item in items:
            part = rollout.part(item.review_id)
            if part is not Part.CANARY:
                rest.append(item)
                if part is Part.COPIED:
                    self._copy(item, rollout)
            elif choose(self._known(), FOR_EVER).candidate:
                asked = Asked(item, rollout.id, self._loop.time())
                self._asked[_place(item)] = asked
                self._canary.submit([replace(item, token=asked)])
            else:
                self._not_asked(item, rollout)
                rest.append(item)
        return rest

    def marked(self, item: WorkItem, answer: Answer) -> Answer:
        """An answer of the task's own workers, which says so where they were asked second."""
        failed = self._failed.get(_place(item))
        if failed is None or failed.token is not item.token:
            return answer
        del self._failed[_place(item)]
        marked = replace(answer, rollout=failed.rollout, candidate_error=failed.error)
        if failed.answer is None:
            return marked
        return replace(
            marked,
            attempts=answer.attempts + failed.answer.attempts,
            usage=used_in_all(failed.answer.usage, answer.usage),
        )

    def withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """Let go of the items whose token is named; copies are nobody's."""
        for place, asked in list(self._asked.items()):
            if withdrawn(asked.item.token):
                asked.withdrawn = True
                del self._asked[place]
        for place, failed in list(self._failed.items()):
            if withdrawn(failed.token):
                del self._failed[place]
        self._canary.withdraw(_is_withdrawn)

    # -- asked from other threads, too -------------------------------------------------------

    def has_some(self) -> bool:
        """Whether answers may come although no primary worker is there."""
        return bool(self._asked)

    def waits_for(self, partition: int, offset: int) -> str:
        """What an item waits for that the candidate has; empty when it does not."""
        asked = self._asked.get((partition, offset))
        if asked is None:
            return ""
        return f"the candidate has had it for {self._loop.time() - asked.since:.0f} s"

    # -- canaries ----------------------------------------------------------------------------

    def _not_asked(self, item: WorkItem, rollout: Rollout) -> None:
        if self._loop.time() - self._began > SETTLED_AFTER_S:
            self._failed[_place(item)] = Failed(item.token, rollout.id, NOT_SERVING)
            metrics.CANARIES.labels(self._task, "failed").inc()

    def _known(self) -> Known:
        """Of a review that has just come: whether the fallback is for it is seen later."""
        return Known(
            primary_missing_s=0.0,
            age_s=0.0,
            rule=None,
            regions_serving=frozenset(),
            names_serving=False,
            unpaid=None,
            rests=None,
            is_canary=True,
            candidate_serving=self._canary.pool.any_serving(),
        )

    def _canary_answered(self, item: WorkItem, answer: Answer) -> None:
        asked = _asked(item)
        if asked.withdrawn:
            return
        # A candidate costs no review its answer.
        error = self._plan.topic.why_unusable(asked.item, answer)
        if error:
            self._fail(asked, error, answer)
            return
        del self._asked[_place(item)]
        metrics.CANARIES.labels(self._task, "answered").inc()
        self._on_finished(asked.item, replace(answer, route=CANDIDATE, rollout=asked.rollout))

    def _fail(self, asked: Asked, error: str, answer: Answer | None = None) -> None:
        metrics.CANARIES.labels(self._task, "failed").inc()
        words = error[:LONGEST_ERROR].encode("utf-8", "backslashreplace").decode()
        place = _place(asked.item)
        self._failed[place] = Failed(asked.item.token, asked.rollout, words, answer)
        del self._asked[place]
        self._to_primary([asked.item])

    # -- copies ------------------------------------------------------------------------------

    def _copy(self, item: WorkItem, rollout: Rollout) -> None:
        place = _place(item)
        if place in self._copies:
            return
        if len(self._copies) >= COPIES_AT_ONCE or not self._shadow.pool.any_serving():
            metrics.SHADOWED.labels(self._task, "dropped").inc()
            return
        copy = self._copies[place] = Asked(item, rollout.id, self._loop.time())
        self._shadow.submit([replace(item, token=copy)])

    def _copy_answered(self, item: WorkItem, answer: Answer) -> None:
        copy = _asked(item)
        if copy.withdrawn:
            return
        del self._copies[_place(item)]
        told = replace(answer, route=CANDIDATE, rollout=copy.rollout)
        outcome = "answered" if self._plan.topic.send(copy.item, told) else "dropped"
        metrics.SHADOWED.labels(self._task, outcome).inc()

    # -- looking -----------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self._look(self._loop.time())
            except Exception:  # noqa: BLE001 - the next look may go well
                self._log.exception("looking at what the candidate has failed")

    def _look(self, now: float) -> None:
        """Take back what a rollout that is over gave it, and what takes too long."""
        rollout = self._plan.rollouts.now()
        goes_on = "" if rollout is None else rollout.id
        over = [asked for asked in self._asked.values() if asked.rollout != goes_on]
        late = [
            asked
            for asked in self._asked.values()
            if asked.rollout == goes_on and now - asked.since > self._plan.patience_s
        ]
        for asked in (*over, *late):
            asked.withdrawn = True
        self._canary.withdraw(_is_withdrawn)
        for asked in late:
            self._fail(asked, f"no answer within {self._plan.patience_s:g} s")
        for asked in over:
            del self._asked[_place(asked.item)]
            metrics.CANARIES.labels(self._task, "taken_back").inc()
        if over:
            self._to_primary([asked.item for asked in over])
        self._drop_copies(now, goes_on)

    def _drop_copies(self, now: float, goes_on: str) -> None:
        for place, copy in list(self._copies.items()):
            if copy.rollout != goes_on or now - copy.since > COPY_PATIENCE_S:
                copy.withdrawn = True
                del self._copies[place]
                metrics.SHADOWED.labels(self._task, "dropped").inc()
        self._shadow.withdraw(_is_withdrawn)


def _place(item: WorkItem) -> Place:
    return item.partition, item.offset


def _asked(item: WorkItem) -> Asked:
    assert isinstance(item.token, Asked)
    return item.token


def _is_withdrawn(token: object) -> bool:
    return isinstance(token, Asked) and token.withdrawn
