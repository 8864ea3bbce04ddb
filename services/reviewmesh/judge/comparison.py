"""Compares a candidate with the task's own workers: observations by metric and slice. Pure.

In shadow the two answers to a review make a pair. In canary a review has one answer. So each answer
is paired with an answer of the other side to another review. Who answers a review is drawn by its
id. The partner is drawn from the latest unpaired answers, so that both are close in time. Always
taking the last one would be biased: failures come late and many at once, and would rarely be taken.

A review that is answered twice, for example after a reset, counts once.
"""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from reviewmesh.judge.answers import ALL, JudgedAnswer, ReviewKey
from reviewmesh.judge.bounds import Bounds
from reviewmesh.judge.evidence import Interval, Observations
from reviewmesh.judge.kappa import Agreement
from reviewmesh.judge.review_set import ReviewSet

LABELS, DISAGREEMENT = "labels", "disagreement"
FAILURES, LATENCY, COST = "failures", "latency", "cost"
METRICS = (LABELS, DISAGREEMENT, FAILURES, LATENCY, COST)
MAX_SLICES = 8
"""Most languages that are judged separately: the first ones that occur."""
# Per side, in shadow: answers that wait for the other answer to their review.
MAX_UNPAIRED = 50_000
# Per slice and side, in canary: answers that wait for a partner.
MAX_UNUSED = 200
# Latencies are whole milliseconds, and 0 if the answer was in a worker's cache.
LATENCY_TOLERANCE_MS = 5.0
# Workers round the cost of an answer up to whole millionths of a US dollar.
COST_TOLERANCE_MICROS = 1
OWN_ROUTES = (PRIMARY, "")
"""Routes of the task's own workers. A failure without a lineage has an empty route."""


def alpha_of(alpha: float, slice_name: str) -> float:
    """The share of alpha for a metric on a slice: half of the metric's share is for all reviews."""
    share = alpha / len(METRICS)
    return share / 2 if slice_name == ALL else share / 2 / MAX_SLICES


@dataclass(frozen=True, slots=True)
class Verdict:
    """The mean of a metric on a slice, with its confidence interval."""

    metric: str
    slice_name: str
    observations: int
    mean: float
    interval: Interval


class RolloutComparison:
    """The comparison in one state of a rollout."""

    def __init__(
        self,
        rollout: str,
        bounds: Bounds,
        slices: list[str],
        model: str | None = None,
    ) -> None:
        """`slices` and `model`: those that are known from the record of the rollout."""
        self._rollout = rollout
        self._slower_times = bounds.slower_times
        self._dearer_times = bounds.dearer_times
        self.slices = slices
        self.model = model
        self.changed_model: str | None = None
        """Set when another model answers as the candidate."""
        self.own_models: set[str] = set()
        """The models that answer as the task's own workers."""
        self.observations: dict[tuple[str, str], Observations] = {}
        self.agreement: dict[str, Agreement] = defaultdict(Agreement)
        self.answered = 0
        self.compared = 0
        self.canaries = 0
        self.unpriced = 0
        """Number of pairs without a known cost. With any, cost is not judged, because the priced
        pairs may be the ones that came from a cache."""
        self._answered_reviews = ReviewSet()
        self._copied_reviews = ReviewSet()
        self._unpaired_own: OrderedDict[ReviewKey, JudgedAnswer] = OrderedDict()
        self._unpaired_copies: OrderedDict[ReviewKey, JudgedAnswer] = OrderedDict()
        self._unused: dict[tuple[str, str], list[JudgedAnswer]] = defaultdict(list)
        self._drawing = random.Random(rollout)

    # -- shadow ------------------------------------------------------------------------------

    def add_own_answer(self, answer: JudgedAnswer) -> None:
        """Add an answer of the task's own workers, in shadow. The fallback's are not compared."""
        if not self._answered_reviews.add(answer.key):
            return
        self.answered += 1
        if answer.route not in OWN_ROUTES:
            return
        self._note_own_model(answer)
        copy = self._unpaired_copies.pop(answer.key, None)
        if copy is not None:
            self._compare(answer, copy)
        else:
            _remember(self._unpaired_own, answer)

    def add_copied_answer(self, answer: JudgedAnswer) -> None:
        """Add an answer of the candidate, in shadow."""
        if answer.rollout not in (self._rollout, None):
            return
        self._note_model(answer)
        if not self._copied_reviews.add(answer.key):
            return
        own = self._unpaired_own.pop(answer.key, None)
        if own is not None:
            self._compare(own, answer)
        else:
            _remember(self._unpaired_copies, answer)

    def _compare(self, own: JudgedAnswer, copy: JudgedAnswer) -> None:
        """Observe whether two answers to a review differ.

        A failure of the candidate is a difference. A failure of the task's own workers is no
        observation.
        """
        if own.outcome is None:
            return
        self.compared += 1
        differs = float(own.outcome != copy.outcome)
        for name in self._slices_of(own):
            self._observe(DISAGREEMENT, name, differs)
            if copy.outcome is not None:
                self.agreement[name].add(own.labels, copy.labels)

    # -- labelled texts ----------------------------------------------------------------------

    def add_labelled_text(self, language: str, own_right: bool, candidate_right: bool) -> None:
        difference = float(own_right) - float(candidate_right)
        for name in (ALL, language) if language in self.slices else (ALL,):
            self._observe(LABELS, name, difference, low=-1.0)

    # -- canary ------------------------------------------------------------------------------

    def add_answer(self, answer: JudgedAnswer) -> None:
        """Add the answer to a review in canary, from the candidate or the task's own workers."""
        is_canary = answer.rollout == self._rollout
        if is_canary and answer.route == CANDIDATE:
            self._note_model(answer)
        if not self._answered_reviews.add(answer.key):
            return
        self.answered += 1
        if is_canary:
            self.canaries += 1
            side, other = CANDIDATE, PRIMARY
        elif answer.rollout is None and answer.route in OWN_ROUTES:
            self._note_own_model(answer)
            side, other = PRIMARY, CANDIDATE
        else:
            return
        for name in self._slices_of(answer):
            partners = self._unused[name, other]
            if not partners:
                self._leave_unused(self._unused[name, side], answer)
                continue
            partner = self._drawn(partners)
            pair = (answer, partner) if side == CANDIDATE else (partner, answer)
            self._compare_canary(name, *pair)

    def _leave_unused(self, unused: list[JudgedAnswer], answer: JudgedAnswer) -> None:
        if len(unused) >= MAX_UNUSED:
            self._drawn(unused)
        unused.append(answer)

    def _drawn(self, unused: list[JudgedAnswer]) -> JudgedAnswer:
        """Remove a random one, each with the same probability."""
        at = self._drawing.randrange(len(unused))
        unused[at], unused[-1] = unused[-1], unused[at]
        return unused.pop()

    def _compare_canary(self, name: str, candidate: JudgedAnswer, own: JudgedAnswer) -> None:
        failed = candidate.candidate_error is not None or candidate.outcome is None
        self._observe(FAILURES, name, float(failed) - float(own.outcome is None), low=-1.0)
        if failed or own.outcome is None:
            return
        if candidate.latency_ms is not None and own.latency_ms is not None:
            is_slower = (
                candidate.latency_ms > self._slower_times * own.latency_ms + LATENCY_TOLERANCE_MS
            )
            self._observe(LATENCY, name, float(is_slower))
        if candidate.cost_micros is not None and own.cost_micros is not None:
            is_dearer = (
                candidate.cost_micros > self._dearer_times * own.cost_micros + COST_TOLERANCE_MICROS
            )
            self._observe(COST, name, float(is_dearer))
        elif name == ALL:
            self.unpriced += 1

    # -- both --------------------------------------------------------------------------------

    def observed(self, metric: str, slice_name: str) -> Observations | None:
        """The observations of a metric on a slice; None without any, or if it is not judged."""
        if metric == COST and self.unpriced:
            return None
        return self.observations.get((metric, slice_name))

    def verdict(self, metric: str, slice_name: str, alpha: float) -> Verdict | None:
        """The verdict on a metric and slice; None as for `observed`."""
        found = self.observed(metric, slice_name)
        if found is None:
            return None
        interval = found.interval(alpha_of(alpha, slice_name))
        return Verdict(metric, slice_name, found.number, found.mean, interval)

    def shows_above(self, metric: str, bound: float, alpha: float) -> str:
        """The first slice whose mean is proven to be above the bound; empty without one."""
        for name in (ALL, *self.slices):
            found = self.observed(metric, name)
            if found is not None and found.shows_above(bound, alpha_of(alpha, name)):
                return name
        return ""

    def is_of_one_model(self) -> bool:
        """Whether the task's own workers run the candidate's model: nothing is left to compare."""
        return self.model in self.own_models

    def _note_own_model(self, answer: JudgedAnswer) -> None:
        if answer.model is not None:
            self.own_models.add(answer.model)

    def _note_model(self, answer: JudgedAnswer) -> None:
        if self.model is None:
            self.model = answer.model
        elif answer.model not in (self.model, None):
            self.changed_model = answer.model

    def shows_below(self, metric: str, bound: float, alpha: float) -> bool:
        """Whether the mean over all reviews is proven to be below the bound."""
        found = self.observed(metric, ALL)
        return found is not None and found.shows_below(bound, alpha_of(alpha, ALL) / 2)

    def _observe(self, metric: str, slice_name: str, value: float, low: float = 0.0) -> None:
        found = self.observations.get((metric, slice_name))
        if found is None:
            found = self.observations[metric, slice_name] = Observations(low)
        found.add(value)

    def _slices_of(self, answer: JudgedAnswer) -> tuple[str, ...]:
        language = answer.language
        if language and language not in self.slices and len(self.slices) < MAX_SLICES:
            self.slices.append(language)
        return (ALL, language) if language in self.slices else (ALL,)


def _remember(answers: OrderedDict[ReviewKey, JudgedAnswer], answer: JudgedAnswer) -> None:
    answers[answer.key] = answer
    if len(answers) > MAX_UNPAIRED:
        answers.popitem(last=False)
