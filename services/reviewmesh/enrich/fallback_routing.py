"""When the fallback is needed: gathers the facts of a waiting review and asks `routes.choose`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.items import Job, WorkItem
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.names import NameFinder
from reviewmesh.enrich.pool import WorkerPool
from reviewmesh.enrich.routes import FallbackLimits, HoldReason, RouteChoice, RouteFacts, choose
from reviewmesh.enrich.spending import Spending
from reviewmesh.leaving.policy import Policy

MAX_JOBS = 256
"""Most reviews in one region at a time: those are paid for even if a primary worker returns."""


@dataclass(slots=True)
class RegionWorkers:
    """The fallback workers of a region, and their jobs."""

    calls: Calls
    jobs: Jobs
    answered_at: float = float("-inf")
    """When they last answered a review, by the event loop's clock."""
    failure_logged_at: float = float("-inf")
    """When it was last logged that they fail."""


class FallbackRouting:
    """Used from one event loop, whose clock gives every `now`, in seconds."""

    def __init__(
        self,
        policy: Policy,
        limits: FallbackLimits,
        payments: Spending | None,
        regions: Mapping[str, RegionWorkers],
        names: NameFinder | None,
    ) -> None:
        """`payments`: None without a budget. `names`: None if the policy masks no names."""
        self._policy = policy
        self._limits = limits
        self._payments = payments
        self._regions = regions
        self._names = names
        self._missing_since: float | None = None

    @property
    def primary_is_missing(self) -> bool:
        return self._missing_since is not None

    def missing_s(self, now: float) -> float:
        """For how long no primary worker has served; 0 while one does."""
        return 0.0 if self._missing_since is None else now - self._missing_since

    def observe(self, primary: WorkerPool, has_jobs: bool, now: float) -> None:
        """Note whether a primary worker serves. `has_jobs`: a review waits for an answer."""
        # Workers that fail every call pass health checks. Without a waiting review only the next
        # call shows whether they answer again, so until then they count as serving.
        if primary.any_answering() or (not has_jobs and primary.any_serving()):
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now

    def may_be_needed(self, jobs: Jobs, now: float) -> bool:
        """Whether the limits are exceeded for any waiting review. Cheap, because called often."""
        if self.missing_s(now) > self._limits.after_s:
            return True
        oldest = min((job.item.accepted_s for job in jobs.oldest()), default=time.time())
        return time.time() - oldest > self._limits.spill_s

    def choose(
        self, job: Job, now: float, serving: frozenset[str], is_reserved: bool = False
    ) -> RouteChoice:
        """`serving`: the regions with a serving worker. `is_reserved`: the call is paid for."""
        return choose(
            RouteFacts(
                primary_missing_s=self.missing_s(now),
                age_s=time.time() - job.item.accepted_s,
                rule=self._policy.rule_of(job.item.business_id),
                regions_serving=serving,
                names_serving=self._names is not None and self._names.serving(),
                budget_problem=None if is_reserved else self._budget_problem(job.item),
                pause=job.fallback_pause_reason if job.fallback_paused_until > now else None,
            ),
            self._limits,
        )

    def serving(self) -> frozenset[str]:
        """The regions with a fallback worker that serves."""
        return frozenset(
            name for name, region in self._regions.items() if region.calls.pool.any_serving()
        )

    def room(self, region: str) -> int:
        """Most reviews that the region may have at a time.

        One while its workers fail their calls: every call is paid for, and one review is enough to
        find out whether they answer again.
        """
        return MAX_JOBS if self._regions[region].calls.pool.any_answering() else 1

    def _budget_problem(self, item: WorkItem) -> HoldReason | None:
        if self._payments is None:
            return HoldReason.NO_BUDGET
        allowed = self._payments.allows(item.partition, item.business_id)
        return None if allowed else HoldReason.SPENT
