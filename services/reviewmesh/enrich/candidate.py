"""Sends reviews to the candidate of a rollout: canaries and copies.

A canary is sent to the candidate in place of the task's own workers. If the candidate fails or does
not answer in time, the task's own workers get it, and the result says why. A copy is sent to both,
and dropped if the candidate has no room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from reviewmesh import metrics
from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.items import Answer, WorkItem, sum_of_usage
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.rollouts import Participation, Rollout, Rollouts
from reviewmesh.enrich.routes import CANDIDATE, FallbackLimits, RouteFacts, choose
from reviewmesh.enrich.shadow import ShadowTopic
from reviewmesh_protos.inference.v1 import inference_pb2

CHECK_EVERY_S = 0.25
COPIES_AT_ONCE = 256
# Before, a missing worker is no failure of the candidate: health checks have only begun.
STARTUP_S = 10.0
COPY_PATIENCE_S = 60.0
BATCH_ITEMS = 32
BATCH_BYTES = 1024 * 1024
LONGEST_ERROR = 500
NOT_SERVING = "no worker with the candidate serves"
NO_FALLBACK = FallbackLimits(float("inf"), float("inf"))

JobKey = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CandidatePlan:
    """The workers of a task's candidate, and the topic of its answers."""

    canary: PoolConfig
    shadow: PoolConfig
    rollouts: Rollouts
    topic: ShadowTopic
    patience_s: float


@dataclass(slots=True, eq=False)
class CandidateJob:
    """A review that was sent to the candidate."""

    item: WorkItem
    rollout: str
    since: float
    """When it was sent, by the event loop's clock."""
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class FailedCanary:
    """A canary that the task's own workers got after the candidate failed."""

    token: object
    rollout: str
    error: str
    answer: Answer | None = None
    """The candidate's failed answer; None if it did not answer."""


class Candidate:
    """Belongs to the event loop of the primary's calls."""

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
        self._canaries: dict[JobKey, CandidateJob] = {}
        self._failed_canaries: dict[JobKey, FailedCanary] = {}
        self._copies: dict[JobKey, CandidateJob] = {}
        canaries = Jobs(BATCH_ITEMS, BATCH_BYTES, self._canary_answered)
        self._canary_calls = Calls(plan.canary, canaries, plan.patience_s, max_attempts=1)
        self._shadow_calls = Calls(
            plan.shadow,
            Jobs(BATCH_ITEMS, BATCH_BYTES, self._copy_answered),
            COPY_PATIENCE_S,
            max_attempts=1,
            lane=inference_pb2.LANE_BACKFILL,
        )
        # Pre-create labels, so that rate() sees the first increment.
        for outcome in ("answered", "dropped"):
            metrics.SHADOWED.labels(self._task, outcome)
        for outcome in ("answered", "failed", "taken_back"):
            metrics.CANARIES.labels(self._task, outcome)
        self._started_at = self._loop.time()
        self._checking = self._loop.create_task(self._run())

    async def close(self) -> None:
        self._checking.cancel()
        await self._canary_calls.close()
        await self._shadow_calls.close()
        await asyncio.to_thread(self._plan.topic.close)

    def take_canaries(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Send canaries and copies to the candidate; returns the items for the task's own
        workers."""
        rollout = self._plan.rollouts.current()
        if rollout is None:
            return list(items)
        primary = []
        for item in items:
            participation = rollout.participation(item.review_id)
            if participation is not Participation.CANARY:
                primary.append(item)
                if participation is Participation.COPIED:
                    self._copy(item, rollout)
            elif choose(self._route_facts(), NO_FALLBACK).candidate:
                job = CandidateJob(item, rollout.id, self._loop.time())
                self._canaries[_key(item)] = job
                self._canary_calls.submit([replace(item, token=job)])
            else:
                self._skip_candidate(item, rollout)
                primary.append(item)
        return primary

    def with_candidate_error(self, item: WorkItem, answer: Answer) -> Answer:
        """The answer of the task's own workers, with the candidate's error if it failed before."""
        failed_canary = self._failed_canaries.get(_key(item))
        if failed_canary is None or failed_canary.token is not item.token:
            return answer
        del self._failed_canaries[_key(item)]
        marked = replace(answer, rollout=failed_canary.rollout, candidate_error=failed_canary.error)
        if failed_canary.answer is None:
            return marked
        return replace(
            marked,
            attempts=answer.attempts + failed_canary.answer.attempts,
            usage=sum_of_usage(failed_canary.answer.usage, answer.usage),
        )

    def withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """Drop the canaries whose token `withdrawn` accepts. No caller waits for copies."""
        for key, job in list(self._canaries.items()):
            if withdrawn(job.item.token):
                job.withdrawn = True
                del self._canaries[key]
        for key, failed_canary in list(self._failed_canaries.items()):
            if withdrawn(failed_canary.token):
                del self._failed_canaries[key]
        self._canary_calls.withdraw(_is_withdrawn)

    # -- called from other threads too -------------------------------------------------------

    def has_jobs(self) -> bool:
        """Whether an answer may come even without a primary worker."""
        return bool(self._canaries)

    def waits_for(self, partition: int, offset: int) -> str:
        """Why an item of the candidate is not answered yet; empty if it is none."""
        job = self._canaries.get((partition, offset))
        if job is None:
            return ""
        return f"the candidate has had it for {self._loop.time() - job.since:.0f} s"

    # -- canaries ----------------------------------------------------------------------------

    def _skip_candidate(self, item: WorkItem, rollout: Rollout) -> None:
        if self._loop.time() - self._started_at > STARTUP_S:
            self._failed_canaries[_key(item)] = FailedCanary(item.token, rollout.id, NOT_SERVING)
            metrics.CANARIES.labels(self._task, "failed").inc()

    def _route_facts(self) -> RouteFacts:
        """The facts of a new canary. Whether it needs the fallback is checked later."""
        return RouteFacts(
            primary_missing_s=0.0,
            age_s=0.0,
            rule=None,
            regions_serving=frozenset(),
            names_serving=False,
            budget_problem=None,
            pause=None,
            is_canary=True,
            candidate_serving=self._canary_calls.pool.any_serving(),
        )

    def _canary_answered(self, item: WorkItem, answer: Answer) -> None:
        job = _canaries(item)
        if job.withdrawn:
            return
        # No review loses its answer to a candidate.
        error = self._plan.topic.why_unusable(job.item, answer)
        if error:
            self._fail(job, error, answer)
            return
        del self._canaries[_key(item)]
        metrics.CANARIES.labels(self._task, "answered").inc()
        self._on_finished(job.item, replace(answer, route=CANDIDATE, rollout=job.rollout))

    def _fail(self, job: CandidateJob, error: str, answer: Answer | None = None) -> None:
        metrics.CANARIES.labels(self._task, "failed").inc()
        reason = error[:LONGEST_ERROR].encode("utf-8", "backslashreplace").decode()
        key = _key(job.item)
        self._failed_canaries[key] = FailedCanary(job.item.token, job.rollout, reason, answer)
        del self._canaries[key]
        self._to_primary([job.item])

    # -- copies ------------------------------------------------------------------------------

    def _copy(self, item: WorkItem, rollout: Rollout) -> None:
        key = _key(item)
        if key in self._copies:
            return
        if len(self._copies) >= COPIES_AT_ONCE or not self._shadow_calls.pool.any_serving():
            metrics.SHADOWED.labels(self._task, "dropped").inc()
            return
        copy = self._copies[key] = CandidateJob(item, rollout.id, self._loop.time())
        self._shadow_calls.submit([replace(item, token=copy)])

    def _copy_answered(self, item: WorkItem, answer: Answer) -> None:
        copy = _canaries(item)
        if copy.withdrawn:
            return
        del self._copies[_key(item)]
        shadow_answer = replace(answer, route=CANDIDATE, rollout=copy.rollout)
        outcome = "answered" if self._plan.topic.send(copy.item, shadow_answer) else "dropped"
        metrics.SHADOWED.labels(self._task, outcome).inc()

    # -- every CHECK_EVERY_S
    # -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                self._check(self._loop.time())
            except Exception:  # noqa: BLE001 - the next check may succeed
                self._log.exception("checking the reviews of the candidate failed, retrying")

    def _check(self, now: float) -> None:
        """Take reviews back whose rollout has ended or that take longer than the patience."""
        rollout = self._plan.rollouts.current()
        running = "" if rollout is None else rollout.id
        ended = [job for job in self._canaries.values() if job.rollout != running]
        late = [
            job
            for job in self._canaries.values()
            if job.rollout == running and now - job.since > self._plan.patience_s
        ]
        for job in (*ended, *late):
            job.withdrawn = True
        self._canary_calls.withdraw(_is_withdrawn)
        for job in late:
            self._fail(job, f"no answer within {self._plan.patience_s:g} s")
        for job in ended:
            del self._canaries[_key(job.item)]
            metrics.CANARIES.labels(self._task, "taken_back").inc()
        if ended:
            self._to_primary([job.item for job in ended])
        self._drop_copies(now, running)

    def _drop_copies(self, now: float, running: str) -> None:
        for key, copy in list(self._copies.items()):
            if copy.rollout != running or now - copy.since > COPY_PATIENCE_S:
                copy.withdrawn = True
                del self._copies[key]
                metrics.SHADOWED.labels(self._task, "dropped").inc()
        self._shadow_calls.withdraw(_is_withdrawn)


def _key(item: WorkItem) -> JobKey:
    return item.partition, item.offset


def _canaries(item: WorkItem) -> CandidateJob:
    assert isinstance(item.token, CandidateJob)
    return item.token


def _is_withdrawn(token: object) -> bool:
    return isinstance(token, CandidateJob) and token.withdrawn
