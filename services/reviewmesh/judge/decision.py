"""Whether a rollout advances, waits or ends, by the comparison so far. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from reviewmesh.enrich.rollouts import READY, SHADOW
from reviewmesh.judge.answers import ALL
from reviewmesh.judge.bounds import Bounds
from reviewmesh.judge.comparison import (
    COST,
    DISAGREEMENT,
    FAILURES,
    LABELS,
    LATENCY,
    RolloutComparison,
)

TIME, MODEL, BOUNDS = "time", "model", "bounds"
HALF = 0.5


class Action(Enum):
    HOLD = "hold"
    ADVANCE = "advance"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Decision:
    action: Action
    why: str
    metric: str = ""
    """The metric that ends it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a rollout."""

    state: str
    step: int
    share: float
    hours: float
    """Since it started."""
    step_s: float
    """Since its state, or its step, began."""
    labelled_left: int
    """Labelled texts that both models have not answered yet."""
    canaries_before: int = 0
    """Canaries that were seen when its step began."""


def decide(standing: Standing, bounds: Bounds, shown: RolloutComparison) -> Decision:
    if shown.other_model is not None:
        why = (
            f"the candidate changed from {shown.model} to {shown.other_model}: what was seen of "
            "one says nothing of the other"
        )
        return Decision(Action.ROLL_BACK, why, MODEL)
    ends = _ends(bounds, shown)
    if ends is not None:
        return ends
    if standing.state == READY:
        return Decision(Action.HOLD, "nothing is shown against it: promote it")
    if standing.hours > bounds.hours:
        why = f"it was not ready within {bounds.hours:g} hours"
        return Decision(Action.ROLL_BACK, why, TIME)
    waits = _shadow_waits if standing.state == SHADOW else _canary_waits
    why = waits(standing, bounds, shown)
    return Decision(Action.HOLD, why) if why else Decision(Action.ADVANCE, _all_well(shown))


def _ends(bounds: Bounds, shown: RolloutComparison) -> Decision | None:
    for metric, bound, words in (
        (
            LABELS,
            bounds.worse,
            "the candidate is worse: it is right about labelled texts less often",
        ),
        (
            DISAGREEMENT,
            bounds.disagreement,
            "the candidate's answers differ more often than allowed",
        ),
        (FAILURES, bounds.failures, "the candidate fails more often than allowed"),
        (LATENCY, HALF, f"the candidate takes more than {bounds.slower_times:g} times as long"),
        (COST, HALF, f"the candidate costs more than {bounds.dearer_times:g} times as much"),
    ):
        name = shown.shows_above(metric, bound, bounds.alpha)
        if name:
            told = _told(shown, metric, name, bounds)
            return Decision(Action.ROLL_BACK, f"{words}{_where(name)}: {told}", metric)
    return None


def _shadow_waits(standing: Standing, bounds: Bounds, shown: RolloutComparison) -> str:
    """What keeps it in shadow; empty when nothing does."""
    copied = shown.answered * standing.share
    if shown.compared < bounds.pairs:
        return f"{shown.compared:,} pairs compared, {bounds.pairs:,} are wanted"
    if shown.compared < bounds.compared * copied:
        return (
            f"{shown.compared / copied:.0%} of the copied reviews were compared, "
            f"{bounds.compared:.0%} are wanted: the candidate does not keep up"
        )
    if standing.labelled_left:
        return f"{standing.labelled_left:,} labelled texts are still to be answered"
    return _not_excluded(shown, DISAGREEMENT, bounds.disagreement, bounds)


def _canary_waits(standing: Standing, bounds: Bounds, shown: RolloutComparison) -> str:
    # Many at a small share tell nothing of the load at a larger one.
    wanted = max(bounds.canaries * standing.step, standing.canaries_before) + bounds.canaries
    if shown.canaries < wanted:
        return f"{shown.canaries:,} canaries seen, {wanted:,} are wanted"
    if standing.step_s < bounds.step_s:
        return f"{bounds.step_s - standing.step_s:,.0f} s of this step are left"
    limits = {FAILURES: bounds.failures, LATENCY: HALF, COST: HALF}
    reasons = (_not_excluded(shown, metric, limit, bounds) for metric, limit in limits.items())
    return next(filter(None, reasons), "")


def _not_excluded(shown: RolloutComparison, metric: str, bound: float, bounds: Bounds) -> str:
    """Why it may still be above the bound; empty when it is shown not to be."""
    if shown.observed(metric, ALL) is None:
        # Without times or costs in the results, these are not judged.
        return "" if metric in (LATENCY, COST) else f"{metric}: nothing was compared yet"
    if shown.shows_within(metric, bound, bounds.alpha):
        return ""
    return f"{metric} may still be above {bound:g}: {_told(shown, metric, ALL, bounds)}"


def _told(shown: RolloutComparison, metric: str, name: str, bounds: Bounds) -> str:
    verdict = shown.verdict(metric, name, bounds.alpha)
    assert verdict is not None
    low, high = verdict.interval.low, verdict.interval.high
    return f"{verdict.mean:.3f} [{low:.3f}, {high:.3f}] over {verdict.observations:,} pairs"


def _all_well(shown: RolloutComparison) -> str:
    seen = shown.compared or shown.canaries
    return f"nothing is shown against it by {seen:,} answers of the candidate"


def _where(name: str) -> str:
    return "" if name == ALL else f" in {name}"
