"""Which pool of workers a waiting review is sent to. Pure: all facts are arguments."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum

from reviewmesh.leaving.policy import Rule

PRIMARY = "primary"
CANDIDATE = "candidate"
FALLBACK = "fallback"
# Reasons why a review leaves.
NO_PRIMARY = "NO_PRIMARY"
LATE = "LATE"


class HoldReason(Enum):
    """Why a review that needs the fallback is not sent to it."""

    FORBIDDEN = "forbidden"
    NO_WORKER = "no_worker"
    NO_NAMES = "no_names"
    NO_BUDGET = "no_budget"
    SPENT = "spent"
    OVER_BOUND = "over_bound"
    FAILED = "failed"


HOLD_MESSAGES = {
    HoldReason.FORBIDDEN: "the policy lets nothing of their business leave",
    HoldReason.NO_WORKER: "no fallback worker serves in a region that the policy allows",
    HoldReason.NO_NAMES: "the policy masks names, and no worker of the mesh finds them now",
    HoldReason.NO_BUDGET: "no budget is given for the task, see REVIEWMESH_BUDGETS",
    HoldReason.SPENT: "a budget is spent, `reviewmesh budget` shows which",
    HoldReason.OVER_BOUND: "they might take more than the budget allows for one call",
    HoldReason.FAILED: "the fallback failed on them and is tried again later",
}


@dataclass(frozen=True, slots=True)
class FallbackLimits:
    """When the fallback is needed."""

    after_s: float
    """Seconds without a serving primary worker."""
    spill_s: float
    """Seconds since a review was accepted that still waits for room at a worker."""


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """The facts about a waiting review and the pools at one moment."""

    primary_missing_s: float
    """Seconds without a serving primary worker; 0 while one serves."""
    age_s: float
    """Seconds since the review was accepted."""
    rule: Rule | None
    """The policy's rule for its business; None: nothing leaves."""
    regions_serving: Set[str]
    """Regions with a fallback worker that serves."""
    names_serving: bool
    """Whether a worker of the mesh finds names."""
    budget_problem: HoldReason | None
    """Why no budget pays for the call: NO_BUDGET or SPENT; None if one does."""
    pause: HoldReason | None
    """Why the review pauses after a failed call: OVER_BOUND or FAILED; None if it does not."""
    is_canary: bool = False
    """Whether a rollout gives the review to the candidate."""
    candidate_serving: bool = False
    candidate_failed: bool = False
    """Whether the candidate had the review and did not answer it."""


@dataclass(frozen=True, slots=True)
class RouteChoice:
    """The fallback in a region, the candidate, or else the primary pool.

    `held`: why a review that needs the fallback stays with the primary pool.
    """

    region: str | None = None
    reason: str = ""
    """Why the review leaves: NO_PRIMARY or LATE."""
    held: HoldReason | None = None
    candidate: bool = False
    """The review goes to the candidate."""


TO_PRIMARY = RouteChoice()
"""The review goes to the primary pool."""
TO_CANDIDATE = RouteChoice(candidate=True)


def choose(facts: RouteFacts, limits: FallbackLimits) -> RouteChoice:
    """The pool for a review. The first reason to hold it back counts."""
    if facts.is_canary and facts.candidate_serving and not facts.candidate_failed:
        return TO_CANDIDATE
    missing = facts.primary_missing_s > limits.after_s
    late = facts.age_s > limits.spill_s
    if not missing and not late:
        return TO_PRIMARY
    if facts.rule is None:
        return RouteChoice(held=HoldReason.FORBIDDEN)
    region = next((name for name in facts.rule.regions if name in facts.regions_serving), None)
    if region is None:
        return RouteChoice(held=HoldReason.NO_WORKER)
    if facts.rule.masks_names and not facts.names_serving:
        return RouteChoice(held=HoldReason.NO_NAMES)
    if facts.budget_problem is not None:
        return RouteChoice(held=facts.budget_problem)
    if facts.pause is not None:
        return RouteChoice(held=facts.pause)
    return RouteChoice(region, reason=NO_PRIMARY if missing else LATE)
