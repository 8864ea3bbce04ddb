"""When a rollout goes on, waits or ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reviewmesh.enrich.rollouts import CANARY, READY, SHADOW
from reviewmesh.judge.bounds import Bounds, BoundsProblem, parse_bounds
from reviewmesh.judge.comparison import COST, FAILURES, LABELS, LATENCY, RolloutComparison
from reviewmesh.judge.decision import MODEL, TIME, Action, Decision, RolloutStatus, decide
from tests.unit.judge.test_comparison import ROLLOUT, answer

BOUNDS = Bounds()
IN_SHADOW = RolloutStatus(SHADOW, 0, share=1.0, hours=1, step_s=3600, labelled_remaining=0)
IN_CANARY = replace(IN_SHADOW, state=CANARY, share=0.01)


def shadowed(pairs: int, differing: int = 0, uncompared: int = 0) -> RolloutComparison:
    shown = RolloutComparison(ROLLOUT, BOUNDS, [])
    for offset in range(pairs):
        shown.add_own_answer(answer(offset))
        said = "price" if offset < differing else "food"
        shown.add_copied_answer(answer(offset, said, candidate=True))
    for offset in range(pairs, pairs + uncompared):
        shown.add_own_answer(answer(offset))
    return shown


def canaries(
    number: int, failing: int = 0, latency_ms: float = 10.0, cost_micros: int | None = None
) -> RolloutComparison:
    """`cost_micros`: what a canary costs; of the others each costs 100, where it is given."""
    shown = RolloutComparison(ROLLOUT, BOUNDS, [])
    for offset in range(number):
        shown.add_answer(answer(offset, cost_micros=None if cost_micros is None else 100))
        if offset < failing:
            shown.add_answer(answer(10_000 + offset, error="gone"))
        else:
            shown.add_answer(
                answer(
                    10_000 + offset, candidate=True, latency_ms=latency_ms, cost_micros=cost_micros
                )
            )
    return shown


def decided(status: RolloutStatus, shown: RolloutComparison) -> Decision:
    return decide(status, BOUNDS, shown)


@pytest.mark.parametrize(
    ("status", "shown", "why"),
    [
        (IN_SHADOW, shadowed(20), "20 pairs compared, 500 are wanted"),
        (IN_SHADOW, shadowed(600, uncompared=900), "40% of the copied reviews were compared"),
        (IN_SHADOW, shadowed(600, differing=110), "disagreement may still be above 0.2"),
        (replace(IN_SHADOW, labelled_remaining=7), shadowed(600), "7 labelled texts are still"),
        (IN_CANARY, canaries(100), "100 canaries seen, 200 are wanted"),
        (replace(IN_CANARY, step=1), canaries(300), "300 canaries seen, 400 are wanted"),
        (replace(IN_CANARY, step_s=10), canaries(300), "590 s of this step are left"),
        (IN_CANARY, canaries(250), "failures may still be above 0.02"),
        (replace(IN_CANARY, state=READY), canaries(9), "nothing is shown against it: promote it"),
    ],
)
def test_what_it_waits_for_is_said(
    status: RolloutStatus, shown: RolloutComparison, why: str
) -> None:
    decision = decided(status, shown)
    assert decision.action is Action.HOLD
    assert why in decision.why


def test_it_goes_on_once_the_bounds_are_shown_to_hold() -> None:
    assert decided(IN_SHADOW, shadowed(600, differing=30)).action is Action.ADVANCE
    assert decided(IN_CANARY, canaries(1_000)).action is Action.ADVANCE


@pytest.mark.parametrize("state", [CANARY, READY])
def test_a_candidate_that_fails_or_is_slow_is_rolled_back(state: str) -> None:
    status = replace(IN_CANARY, state=state)
    failing = decided(status, canaries(200, failing=60))
    assert (failing.action, failing.metric) == (Action.ROLL_BACK, FAILURES)
    slow = decided(status, canaries(200, latency_ms=21.0))
    assert (slow.action, slow.metric) == (Action.ROLL_BACK, LATENCY)
    assert decided(status, canaries(200, latency_ms=19.0)).action is Action.HOLD
    dear = decided(status, canaries(200, cost_micros=152))
    assert (dear.action, dear.metric) == (Action.ROLL_BACK, COST)
    assert dear.why.startswith("the candidate costs more than 1.5 times as much: 1.000 [")
    assert decided(status, canaries(200, cost_micros=151)).action is Action.HOLD


def test_it_goes_on_without_costs_and_not_before_those_that_are_known_hold() -> None:
    assert decided(IN_CANARY, canaries(1_000, cost_micros=100)).action is Action.ADVANCE
    shown = canaries(1_000)
    assert (shown.unpriced, decided(IN_CANARY, shown).action) == (1_000, Action.ADVANCE)
    mixed = canaries(1_000, cost_micros=100)
    for offset in range(950):
        mixed.add_answer(answer(20_000 + offset, cost_micros=100))
        mixed.add_answer(answer(30_000 + offset, candidate=True, cost_micros=200))
    waiting = decided(IN_CANARY, mixed)
    assert waiting.action is Action.HOLD
    assert waiting.why.startswith("cost may still be above 0.5: 0.487 [")


def test_each_step_sees_its_own_canaries() -> None:
    """However many the steps before it saw: they tell nothing of a larger share."""
    status = replace(IN_CANARY, step=1, canaries_before=900)
    waiting = decided(status, canaries(1_000))
    assert (waiting.action, waiting.why) == (
        Action.HOLD,
        "1,000 canaries seen, 1,100 are wanted",
    )
    assert decided(status, canaries(1_100)).action is Action.ADVANCE


def test_a_candidate_that_differs_too_often_is_rolled_back() -> None:
    decision = decided(IN_SHADOW, shadowed(300, differing=150))
    assert decision.action is Action.ROLL_BACK
    assert "differ more often than allowed: 0.500 [" in decision.why


def test_worse_is_said_over_labelled_texts_only() -> None:
    shown = shadowed(300, differing=40)
    for number in range(100):
        shown.add_labelled_text("en", own_right=True, candidate_right=number % 3 == 0)
    decision = decided(IN_SHADOW, shown)
    assert (decision.action, decision.metric) == (Action.ROLL_BACK, LABELS)
    assert decision.why.startswith("the candidate is worse")


def test_a_rollout_that_takes_too_long_or_changes_its_model_ends() -> None:
    late = decided(replace(IN_SHADOW, hours=73), shadowed(9))
    assert (late.action, late.metric) == (Action.ROLL_BACK, TIME)
    shown = shadowed(9)
    shown.add_copied_answer(answer(1, candidate=True, model="m@2"))
    changed = decided(IN_SHADOW, shown)
    assert (changed.action, changed.metric) == (Action.ROLL_BACK, MODEL)
    promoted = shadowed(9)
    promoted.add_own_answer(answer(10_000, model="m@1"))
    early = decided(IN_SHADOW, promoted)
    assert (early.action, early.metric) == (Action.ROLL_BACK, MODEL)
    assert "compared with itself" in early.why
    assert decided(replace(IN_SHADOW, state=READY), promoted).action is Action.HOLD


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"alpha": 2}', "alpha: Input should be less than or equal to 0.2"),
        ('{"aplha": 0.1}', "aplha: there is no such bound; there are alpha, shadow_share"),
        ('{"steps": [0.5, 0.1]}', "expected shares that rise"),
        ('{"steps": [0.5, 2]}', "expected shares of 1 at most"),
        ('{"steps": [0.5, 1]}', "expected shares of 0.95 at most"),
        ('{"steps": [NaN]}', "steps.0: Input should be a finite number"),
        ('{"step_s": Infinity}', "step_s: Input should be a finite number"),
    ],
)
def test_bounds_that_are_wrong_say_how(text: str, problem: str) -> None:
    with pytest.raises(BoundsProblem) as raised:
        parse_bounds(text)
    assert problem in str(raised.value)
