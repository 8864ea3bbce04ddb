"""What a model answers, counted value by value beside what it answered on the gate's set.

Prometheus compares the two (`observability/rules`): so workers of one model count together, and a
restart loses nothing. Here there are only counters, of values that are known beforehand.
"""

from __future__ import annotations

from collections import Counter as Totals
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter

from reviewmesh_worker.engines.interface import ItemFailure, TaskDescription, TaskOutput
from reviewmesh_worker.engines.values import LABEL, LANGUAGE, NONE, SCORE, TENTHS, values_of
from reviewmesh_worker.packages.reference import Counts
from reviewmesh_worker.serving import metrics
from reviewmesh_worker.serving.languages import language_of

OTHER: Final = "other"
"""Whatever is not among the values that are known beforehand."""
LANGUAGE_OF_EVERY: Final = 20
"""Detecting a language takes 0.3 ms: it is done for one text of so many."""


class AnswerValues:
    """Those of one task's model, used from one event loop. Nothing is seen before `show`."""

    def __init__(self, about: TaskDescription, reference: Counts) -> None:
        self._labels = (about.task, about.model, about.model_version)
        self._reference = reference
        self._known = {LABEL: (*about.labels, NONE, OTHER), SCORE: TENTHS}
        if LANGUAGE in reference:
            self._known[LANGUAGE] = (*(set(reference[LANGUAGE]) - {OTHER}), OTHER)
        self._counters: dict[tuple[str, str], Counter] = {}
        self._texts = 0

    def show(self) -> None:
        """Each value from zero, so that its first increase is seen."""
        for of, values in self._known.items():
            for value in values:
                counter = metrics.ANSWER_VALUES.labels(*self._labels, of, value)
                self._counters[of, value] = counter
        for of, counts in self._shares():
            total = sum(counts.values())
            metrics.REFERENCE_VALUES.labels(*self._labels, of).set(total)
            for value, count in counts.items():
                metrics.REFERENCE_SHARE.labels(*self._labels, of, value).set(count / total)

    def hide(self) -> None:
        """Its model is out of service; what is still under way is not counted."""
        for of, value in self._counters:
            metrics.ANSWER_VALUES.remove(*self._labels, of, value)
        for of, counts in self._shares():
            metrics.REFERENCE_VALUES.remove(*self._labels, of)
            for value in counts:
                metrics.REFERENCE_SHARE.remove(*self._labels, of, value)
        self._counters = {}

    def count(self, answered: Iterable[tuple[TaskOutput | ItemFailure, str, str]]) -> None:
        """Each answer with its text and the language that the caller gave, or an empty one."""
        # Added up first: every increase takes a lock.
        totals: Totals[tuple[str, str]] = Totals()
        for outcome, text, language in answered:
            totals.update(values_of(outcome))
            self._texts += 1
            if LANGUAGE in self._known and self._texts % LANGUAGE_OF_EVERY == 0:
                totals[LANGUAGE, language_of(text, language) or OTHER] += 1
        for (of, value), total in totals.items():
            counter = self._counters.get((of, value)) or self._counters.get((of, OTHER))
            if counter is not None:
                counter.inc(total)

    def _shares(self) -> Iterable[tuple[str, dict[str, int]]]:
        """Counts of every known value; those of other values are of OTHER."""
        for of, known in self._known.items():
            given = self._reference.get(of, {})
            if not sum(given.values()):
                continue
            counts = dict.fromkeys(known, 0)
            for value, count in given.items():
                # Every score is in a tenth: only labels and languages may be others.
                where = value if value in counts else OTHER
                counts[where] = counts.get(where, 0) + count
            yield of, counts
