"""Decides whether a rollout advances, waits or is rolled back. Pure."""

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
    """The metric because of which it is rolled back."""


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """The progress of a rollout."""

    state: str
    step: int
    share: float
    hours: float
    """Hours since the rollout started."""
    step_s: float
    """Seconds since its state or step began."""
    labelled_remaining: int
    """Number of labelled texts that a model has not answered yet."""
    canaries_before: int = 0
    """Number of canaries that were seen before its step began."""


def decide(status: RolloutStatus, bounds: Bounds, shown: RolloutComparison) -> Decision:
    """Roll back once a bound is proven to be exceeded, advance once all are proven to hold."""
    if shown.changed_model is not None:
        why = (
            f"the candidate changed from {shown.model} to {shown.changed_model}: what was "
            "measured of one says nothing about the other"
        )
        return Decision(Action.ROLL_BACK, why, MODEL)
    ends = _rollback(bounds, shown)
    if ends is not None:
        return ends
    if status.state == READY:
        return Decision(Action.HOLD, "nothing is shown against it: promote it")
    if shown.is_of_one_model():
        why = (
            f"the task's own workers run {shown.model} too, so that it is compared with itself: "
            "it was promoted before the rollout was over"
        )
        return Decision(Action.ROLL_BACK, why, MODEL)
    if status.hours > bounds.hours:
        why = f"it was not ready within {bounds.hours:g} hours"
        return Decision(Action.ROLL_BACK, why, TIME)
    waits = _shadow_waits if status.state == SHADOW else _canary_waits
    why = waits(status, bounds, shown)
    return Decision(Action.HOLD, why) if why else Decision(Action.ADVANCE, _advance_reason(shown))


def _rollback(bounds: Bounds, shown: RolloutComparison) -> Decision | None:
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
            told = _numbers(shown, metric, name, bounds)
            return Decision(Action.ROLL_BACK, f"{words}{_slice_suffix(name)}: {told}", metric)
    return None


def _shadow_waits(status: RolloutStatus, bounds: Bounds, shown: RolloutComparison) -> str:
    """Why the rollout stays in shadow; empty if it can advance."""
    copied = shown.answered * status.share
    if shown.compared < bounds.pairs:
        return f"{shown.compared:,} pairs compared, {bounds.pairs:,} are wanted"
    if shown.compared < bounds.compared * copied:
        return (
            f"{shown.compared / copied:.0%} of the copied reviews were compared, "
            f"{bounds.compared:.0%} are wanted: the candidate does not keep up"
        )
    if status.labelled_remaining:
        return f"{status.labelled_remaining:,} labelled texts are still to be answered"
    return _not_excluded(shown, DISAGREEMENT, bounds.disagreement, bounds)


def _canary_waits(status: RolloutStatus, bounds: Bounds, shown: RolloutComparison) -> str:
    # At least bounds.canaries in each step: those of smaller shares show nothing about this load.
    wanted = max(bounds.canaries * status.step, status.canaries_before) + bounds.canaries
    if shown.canaries < wanted:
        return f"{shown.canaries:,} canaries seen, {wanted:,} are wanted"
    if status.step_s < bounds.step_s:
        return f"{bounds.step_s - status.step_s:,.0f} s of this step are left"
    limits = {FAILURES: bounds.failures, LATENCY: HALF, COST: HALF}
    reasons = (_not_excluded(shown, metric, limit, bounds) for metric, limit in limits.items())
    return next(filter(None, reasons), "")


def _not_excluded(shown: RolloutComparison, metric: str, bound: float, bounds: Bounds) -> str:
    """That the mean may still be above the bound; empty if it is proven to be below."""
    if shown.observed(metric, ALL) is None:
        # Results without latencies or costs are not judged by them.
        return "" if metric in (LATENCY, COST) else f"{metric}: nothing was compared yet"
    if shown.shows_below(metric, bound, bounds.alpha):
        return ""
    return f"{metric} may still be above {bound:g}: {_numbers(shown, metric, ALL, bounds)}"


def _numbers(shown: RolloutComparison, metric: str, name: str, bounds: Bounds) -> str:
    verdict = shown.verdict(metric, name, bounds.alpha)
    assert verdict is not None
    low, high = verdict.interval.low, verdict.interval.high
    return f"{verdict.mean:.3f} [{low:.3f}, {high:.3f}] over {verdict.observations:,} pairs"


def _advance_reason(shown: RolloutComparison) -> str:
    answers = shown.compared or shown.canaries
    return f"nothing is shown against it by {answers:,} answers of the candidate"


def _slice_suffix(name: str) -> str:
    return "" if name == ALL else f" in {name}"
