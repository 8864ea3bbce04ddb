"""What a rollout has shown so far: observations by metric and slice. Pure.

In shadow the two answers to a review make a pair. In canary a review has one answer, so that each
of the candidate is held against one of the task's own workers to another review: who answers a
review is drawn by its id, and the partner is drawn from the latest that were not used, so that what
is compared is near in time. The last one would be a biased partner: answers that fail come late,
and many at once, and would be passed over.

A review that is answered twice, as after a reset, counts once: the same answers again show nothing
new.
"""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from reviewmesh.judge.answers import ALL, JudgedAnswer, Place
from reviewmesh.judge.bounds import Bounds
from reviewmesh.judge.evidence import Interval, Observations
from reviewmesh.judge.kappa import Agreement
from reviewmesh.judge.places import Places

LABELS, DISAGREEMENT = "labels", "disagreement"
FAILURES, LATENCY, COST = "failures", "latency", "cost"
METRICS = (LABELS, DISAGREEMENT, FAILURES, LATENCY, COST)
SLICES = 8
"""Languages that are judged separately: the first that occur."""
REMEMBERED = 20_000
UNUSED = 200
# Times are whole milliseconds, and out of a worker's memory an answer takes none.
SLACK_MS = 5.0
# Workers round what an answer cost up to whole millionths of a US dollar.
SLACK_MICROS = 1
OWN = (PRIMARY, "")
"""Routes of the task's own workers; a failure without a lineage names none."""


def alpha_of(alpha: float, of_slice: str) -> float:
    """The part of alpha for one metric on one slice. All reviews get half of the metric's part."""
    share = alpha / len(METRICS)
    return share / 2 if of_slice == ALL else share / 2 / SLICES


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one metric shows on one slice."""

    metric: str
    of_slice: str
    observations: int
    mean: float
    interval: Interval


class RolloutComparison:
    """Of one state of one rollout."""

    def __init__(
        self,
        rollout: str,
        bounds: Bounds,
        slices: list[str],
        model: str | None = None,
    ) -> None:
        """`slices` and `model`: those that are known already."""
        self._rollout = rollout
        self._slower_times = bounds.slower_times
        self._dearer_times = bounds.dearer_times
        self.slices = slices
        self.model = model
        self.other_model: str | None = None
        """Another model that answered as the candidate."""
        self.found: dict[tuple[str, str], Observations] = {}
        self.agreement: dict[str, Agreement] = defaultdict(Agreement)
        self.answered = 0
        self.compared = 0
        self.canaries = 0
        self.unpriced = 0
        """Pairs of which a cost is not known. From the first one on cost is not judged: the
        others may be those that came out of a cache."""
        self._answered_places = Places()
        self._copied_places = Places()
        self._own: OrderedDict[Place, JudgedAnswer] = OrderedDict()
        self._copies: OrderedDict[Place, JudgedAnswer] = OrderedDict()
        self._unused: dict[tuple[str, str], list[JudgedAnswer]] = defaultdict(list)
        self._drawing = random.Random(rollout)

    # -- shadow ------------------------------------------------------------------------------

    def own_answer(self, answer: JudgedAnswer) -> None:
        """Add an answer of the task's own workers, in shadow; answers of the fallback are not
        compared."""
        if not self._answered_places.add(answer.place):
            return
        self.answered += 1
        if answer.route not in OWN:
            return
        copy = self._copies.pop(answer.place, None)
        if copy is not None:
            self._compare(answer, copy)
        else:
            _remember(self._own, answer)

    def copied_answer(self, answer: JudgedAnswer) -> None:
        """Add an answer of the candidate, in shadow."""
        if answer.rollout not in (self._rollout, None):
            return
        self._is_of(answer)
        if not self._copied_places.add(answer.place):
            return
        own = self._own.pop(answer.place, None)
        if own is not None:
            self._compare(own, answer)
        else:
            _remember(self._copies, answer)

    def _compare(self, own: JudgedAnswer, copy: JudgedAnswer) -> None:
        """A failure of the candidate counts as a difference; one of the task's own workers is not
        counted."""
        if own.said is None:
            return
        self.compared += 1
        differs = float(own.said != copy.said)
        for name in self._slices_of(own):
            self._observe(DISAGREEMENT, name, differs)
            if copy.said is not None:
                self.agreement[name].add(own.labels, copy.labels)

    # -- labelled texts ----------------------------------------------------------------------

    def labelled(self, language: str, own_right: bool, candidate_right: bool) -> None:
        difference = float(own_right) - float(candidate_right)
        for name in (ALL, language) if language in self.slices else (ALL,):
            self._observe(LABELS, name, difference, low=-1.0)

    # -- canary ------------------------------------------------------------------------------

    def answer(self, answer: JudgedAnswer) -> None:
        """Add the answer to a review in canary, from the candidate or the task's own workers."""
        is_canary = answer.rollout == self._rollout
        if is_canary and answer.route == CANDIDATE:
            self._is_of(answer)
        if not self._answered_places.add(answer.place):
            return
        self.answered += 1
        if is_canary:
            self.canaries += 1
            side, other = CANDIDATE, PRIMARY
        elif answer.rollout is None and answer.route in OWN:
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
            self._hold_against(name, *pair)

    def _leave_unused(self, unused: list[JudgedAnswer], answer: JudgedAnswer) -> None:
        if len(unused) >= UNUSED:
            self._drawn(unused)
        unused.append(answer)

    def _drawn(self, unused: list[JudgedAnswer]) -> JudgedAnswer:
        """One of them, each with the same probability; it is not there any more."""
        at = self._drawing.randrange(len(unused))
        unused[at], unused[-1] = unused[-1], unused[at]
        return unused.pop()

    def _hold_against(self, name: str, candidate: JudgedAnswer, own: JudgedAnswer) -> None:
        failed = candidate.candidate_error is not None or candidate.said is None
        self._observe(FAILURES, name, float(failed) - float(own.said is None), low=-1.0)
        if failed or own.said is None:
            return
        if candidate.ms is not None and own.ms is not None:
            is_slower = candidate.ms > self._slower_times * own.ms + SLACK_MS
            self._observe(LATENCY, name, float(is_slower))
        if candidate.micros is not None and own.micros is not None:
            is_dearer = candidate.micros > self._dearer_times * own.micros + SLACK_MICROS
            self._observe(COST, name, float(is_dearer))
        elif name == ALL:
            self.unpriced += 1

    # -- both --------------------------------------------------------------------------------

    def observed(self, metric: str, of_slice: str) -> Observations | None:
        """None without observations, and where the metric is not judged."""
        if metric == COST and self.unpriced:
            return None
        return self.found.get((metric, of_slice))

    def verdict(self, metric: str, of_slice: str, alpha: float) -> Verdict | None:
        """As `observed`."""
        found = self.observed(metric, of_slice)
        if found is None:
            return None
        interval = found.interval(alpha_of(alpha, of_slice))
        return Verdict(metric, of_slice, found.number, found.mean, interval)

    def shows_above(self, metric: str, bound: float, alpha: float) -> str:
        """The first slice whose mean is shown to be above the bound; empty without one."""
        for name in (ALL, *self.slices):
            found = self.observed(metric, name)
            if found is not None and found.shows_above(bound, alpha_of(alpha, name)):
                return name
        return ""

    def _is_of(self, answer: JudgedAnswer) -> None:
        if self.model is None:
            self.model = answer.model
        elif answer.model not in (self.model, None):
            self.other_model = answer.model

    def shows_within(self, metric: str, bound: float, alpha: float) -> bool:
        """Whether the confidence sequence over all reviews lies below the bound as a whole."""
        found = self.observed(metric, ALL)
        return found is not None and found.shows_below(bound, alpha_of(alpha, ALL) / 2)

    def _observe(self, metric: str, of_slice: str, value: float, low: float = 0.0) -> None:
        found = self.found.get((metric, of_slice))
        if found is None:
            found = self.found[metric, of_slice] = Observations(low)
        found.add(value)

    def _slices_of(self, answer: JudgedAnswer) -> tuple[str, ...]:
        language = answer.language
        if language and language not in self.slices and len(self.slices) < SLICES:
            self.slices.append(language)
        return (ALL, language) if language in self.slices else (ALL,)


def _remember(answers: OrderedDict[Place, JudgedAnswer], answer: JudgedAnswer) -> None:
    answers[answer.place] = answer
    if len(answers) > REMEMBERED:
        answers.popitem(last=False)
