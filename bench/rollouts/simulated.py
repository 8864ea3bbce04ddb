"""Rollouts of made-up models through the judge's own comparison and decisions. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from reviewmesh.enrich.rollouts import CANARY, READY, SHADOW
from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from reviewmesh.judge.answers import ALL, JudgedAnswer
from reviewmesh.judge.bounds import Bounds
from reviewmesh.judge.comparison import LABELS, RolloutComparison, alpha_of
from reviewmesh.judge.decision import Action, Decision, RolloutStatus, decide

ROLLOUT = "simulated"
LANGUAGES = ("en", "en", "en", "de", "da")
LABELLED = 1_000
"""Rows of the labelled file."""
LOOK_EVERY = 50
LATER = 1_000
"""Canaries that are still judged once it is ready."""
GIVES_UP_AFTER = 20_000
"""Answers of a state, or of a step, that does not end."""


@dataclass(frozen=True)
class Models:
    """How the two differ: as they are, the candidate is as good as the other in everything."""

    right: float = 0.85
    """How often the task's own workers are right."""
    worse: float = 0.0
    """By how much less often the candidate is."""
    differ: float = 0.10
    """How often just one of both is right."""
    disagree: float = 0.15
    fail: float = 0.01
    fail_more: float = 0.0
    """By how much more often the candidate fails."""
    slower: float = 1.0
    """How many times as long the candidate takes."""
    dearer: float = 1.0
    """How many times as much the candidate costs."""


class Made:
    """Observations by chance."""

    def __init__(self, models: Models, seed: int) -> None:
        self._models = models
        self._chance = random.Random(seed)
        self._offset = 0

    def language(self) -> str:
        return self._chance.choice(LANGUAGES)

    def rightness(self) -> tuple[bool, bool]:
        """Of the task's own workers and the candidate, about one text."""
        models, drawn = self._models, self._chance.random()
        only_own = (models.differ + models.worse) / 2
        if drawn < only_own:
            return True, False
        if drawn < models.differ:
            return False, True
        both = (models.right - only_own) / (1 - models.differ)
        right = self._chance.random() < both
        return right, right

    def copied(self) -> tuple[JudgedAnswer, JudgedAnswer]:
        """Both answers to one review."""
        self._offset += 1
        differs = self._chance.random() < self._models.disagree
        own = self._seen(self.language(), "a", PRIMARY)
        return own, replace(own, outcome=frozenset("b" if differs else "a"), route=CANDIDATE)

    def canary(self, route: str) -> JudgedAnswer:
        self._offset += 1
        models = self._models
        share = models.fail + (models.fail_more if route == CANDIDATE else 0.0)
        failed = self._chance.random() < share
        return self._seen(self.language(), None if failed else "a", route)

    def _seen(self, language: str, said: str | None, route: str) -> JudgedAnswer:
        is_candidate = route == CANDIDATE
        latency_ms, cost_micros = (
            self._chance.lognormvariate(7, 0.5),
            self._chance.lognormvariate(5, 0.5),
        )
        return JudgedAnswer(
            key=(0, self._offset),
            language=language,
            outcome=None if said is None else frozenset(said),
            labels=frozenset(said or ()),
            latency_ms=latency_ms * (self._models.slower if is_candidate else 1),
            route=route,
            rollout=ROLLOUT if is_candidate else None,
            candidate_error="failed" if is_candidate and said is None else None,
            cost_micros=math.ceil(cost_micros * (self._models.dearer if is_candidate else 1)),
        )


def rolled_out(
    models: Models, bounds: Bounds, seed: int, at_most: int = GIVES_UP_AFTER
) -> Decision | None:
    """A whole rollout; None where it was not rolled back."""
    made = Made(models, seed)
    ended = _in_shadow(made, bounds, at_most)
    return ended if ended is not None else _in_canary(made, bounds, at_most)


def _in_shadow(made: Made, bounds: Bounds, at_most: int) -> Decision | None:
    shown = RolloutComparison(ROLLOUT, bounds, [])
    asked = 0

    def observe() -> None:
        nonlocal asked
        own, copy = made.copied()
        shown.add_own_answer(own)
        shown.add_copied_answer(replace(copy, rollout=ROLLOUT))
        if asked < LABELLED:
            asked += 1
            shown.add_labelled_text(made.language(), *made.rightness())

    def status() -> RolloutStatus:
        return RolloutStatus(SHADOW, 0, bounds.shadow_share, 1, 0, LABELLED - asked)

    decision = _looked_at(observe, status, bounds, shown, at_most)
    return decision if decision is None or decision.action is Action.ROLL_BACK else None


def _in_canary(made: Made, bounds: Bounds, at_most: int) -> Decision | None:
    shown = RolloutComparison(ROLLOUT, bounds, [])

    def observe() -> None:
        shown.add_answer(made.canary(PRIMARY))
        shown.add_answer(made.canary(CANDIDATE))

    for step, share in enumerate(bounds.steps):
        at = RolloutStatus(CANARY, step, share, 1, bounds.step_s, 0)
        decision = _looked_at(observe, lambda at=at: at, bounds, shown, at_most)  # type: ignore[misc]
        if decision is not None and decision.action is Action.ROLL_BACK:
            return decision
    ready = RolloutStatus(READY, 0, bounds.steps[-1], 1, 0, 0)
    for number in range(LATER):
        observe()
        if number % LOOK_EVERY == 0:
            decision = decide(ready, bounds, shown)
            if decision.action is Action.ROLL_BACK:
                return decision
    return None


def _looked_at(
    observe: Callable[[], None],
    status: Callable[[], RolloutStatus],
    bounds: Bounds,
    shown: RolloutComparison,
    at_most: int,
) -> Decision | None:
    """Until it goes on or ends; None where neither comes."""
    for number in range(1, at_most):
        observe()
        if number % LOOK_EVERY == 0:
            decision = decide(status(), bounds, shown)
            if decision.action is not Action.HOLD:
                return decision
    return None


def pairs_until_found(models: Models, alpha: float, seed: int, at_most: int) -> int | None:
    """Labelled texts until the candidate is shown to be worse, with the share of alpha that the
    judge spends on them."""
    made = Made(models, seed)
    shown = RolloutComparison(ROLLOUT, Bounds(), [])
    for number in range(1, at_most + 1):
        shown.add_labelled_text("", *made.rightness())
        if number % LOOK_EVERY == 0:
            found = shown.observations[LABELS, ALL]
            if found.shows_above(0.0, alpha_of(alpha, ALL)):
                return number
    return None
