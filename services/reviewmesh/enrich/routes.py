"""Which pool of workers a waiting review is for. Pure: everything it depends on is an argument."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum

from reviewmesh.leaving.policy import Rule

PRIMARY = "primary"
CANDIDATE = "candidate"
FALLBACK = "fallback"
# Why a review leaves.
NO_PRIMARY = "NO_PRIMARY"
LATE = "LATE"


class Held(Enum):
    """Why a review that the fallback would be taken for waits all the same."""

    FORBIDDEN = "forbidden"
    NO_WORKER = "no_worker"
    NO_NAMES = "no_names"
    NO_BUDGET = "no_budget"
    SPENT = "spent"
    OVER_BOUND = "over_bound"
    FAILED = "failed"


TOLD = {
    Held.FORBIDDEN: "the policy lets nothing of their business leave",
    Held.NO_WORKER: "no fallback worker serves in a region that the policy allows",
    Held.NO_NAMES: "the policy masks names, and no worker of the mesh finds them now",
    Held.NO_BUDGET: "no budget is given for the task, see REVIEWMESH_BUDGETS",
    Held.SPENT: "a budget is spent, `reviewmesh budget` shows which",
    Held.OVER_BOUND: "they might take more than the budget allows for one call",
    Held.FAILED: "the fallback failed on them and is tried again later",
}


@dataclass(frozen=True, slots=True)
class Limits:
    after_s: float
    """The fallback is taken once no primary worker has served for longer."""
    spill_s: float
    """It is taken for reviews that were accepted longer ago and still wait for room."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a waiting review and of the pools at this moment."""

    primary_missing_s: float
    """For how long no primary worker has served; 0 while one does."""
    age_s: float
    """Since the review was accepted."""
    rule: Rule | None
    """What the policy says of its business; None: nothing leaves."""
    regions_serving: Set[str]
    """Regions with a fallback worker that serves."""
    names_serving: bool
    """Whether a worker of the mesh finds names."""
    unpaid: Held | None
    """Why no budget pays for the call: NO_BUDGET or SPENT; None where one does."""
    rests: Held | None
    """Why the review is not to leave again so soon: OVER_BOUND or FAILED; None where it may."""
    is_canary: bool = False
    """Whether a rollout gives the review to the candidate."""
    candidate_serving: bool = False
    candidate_failed: bool = False
    """Whether the candidate had the review and did not answer it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A region where the fallback is taken; `held` where it would be, and may not."""

    region: str | None = None
    reason: str = ""
    """Why the review leaves: NO_PRIMARY or LATE."""
    held: Held | None = None
    candidate: bool = False
    """The review is for the candidate."""


STAYS = Choice()
"""The review is for the primary pool."""


CANARY = Choice(candidate=True)


def choose(known: Known, limits: Limits) -> Choice:
    if known.is_canary and known.candidate_serving and not known.candidate_failed:
        return CANARY
    missing = known.primary_missing_s > limits.after_s
    late = known.age_s > limits.spill_s
    if not missing and not late:
        return STAYS
    if known.rule is None:
        return Choice(held=Held.FORBIDDEN)
    region = next((name for name in known.rule.regions if name in known.regions_serving), None)
    if region is None:
        return Choice(held=Held.NO_WORKER)
    if known.rule.masks_names and not known.names_serving:
        return Choice(held=Held.NO_NAMES)
    if known.unpaid is not None:
        return Choice(held=known.unpaid)
    if known.rests is not None:
        return Choice(held=known.rests)
    return Choice(region, reason=NO_PRIMARY if missing else LATE)
