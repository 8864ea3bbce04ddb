"""The consensus of the teachers, each weighted by its reliability for each label.

Reliability is estimated from the answers alone (see `dawid_skene`), first over all units of a task,
then, where a task has many labels of its own (topics), for each of them: with the estimate over all
as a prior, so that a rare topic does not depend on a handful of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reviewmesh_models.evaluation.scores import Floats
from reviewmesh_models.labelling.alpha import NOT_SAID, label_counts
from reviewmesh_models.labelling.dawid_skene import Estimate, Prior, dawid_skene
from reviewmesh_models.labelling.units import Span, Units
from reviewmesh_worker.tasks.definition import Task

LEAST_SURE: Final = 0.7
"""A review with a unit below this is not used for training until a person has decided it."""
WHOLE: Final = ""
"""The group of all units of a task."""

_ASSUMED: Final = 0.8
"""The prior reliability of a teacher."""
_ASSUMED_UNITS: Final = 4.0
"""The weight of that prior, in units of each label."""
_SHARED_UNITS: Final = 20.0
"""The weight of the estimate over all topics, in units of each topic."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """Of one task."""

    units: Units
    posterior: Floats
    """(units, labels)."""
    reliability: Mapping[str, Estimate]
    """By topic; of all units under `WHOLE`."""

    @property
    def decided(self) -> list[str]:
        """The likeliest label of each unit."""
        return [self.units.labels[number] for number in self.posterior.argmax(1)]

    @property
    def sure(self) -> Floats:
        """(units): how probable that is."""
        sure: Floats = self.posterior.max(1, initial=0.0)
        return sure

    @property
    def doubt(self) -> Floats:
        """(units): entropy in bits, the information of a decision on the unit."""
        shares = np.maximum(self.posterior, 1e-12)
        doubt: Floats = -(shares * np.log2(shares)).sum(1)
        return doubt

    @property
    def disputed(self) -> Sequence[int]:
        """Units of which two teachers say different things; those with most doubt first."""
        said = self.units.said
        least = np.where(said == NOT_SAID, len(self.units.labels), said).min(1, initial=10**6)
        different = said.max(1, initial=NOT_SAID) > least
        order = np.argsort(-self.doubt, kind="stable")
        return [int(unit) for unit in order if different[unit]]


def consensus_of(
    task: Task, units: Units, decided: Mapping[int, int | None] | None = None
) -> Consensus:
    """`decided` has the labels' numbers that people gave to units; None where they differ."""
    counts = label_counts(units.said, len(units.labels))
    whole = dawid_skene(counts, _assumed(counts))
    reliability = {WHOLE: whole}
    posterior = whole.posterior.copy()
    if task.answer == "polarity_per_label":
        prior = Prior(whole.errors * _SHARED_UNITS, whole.marginals * _SHARED_UNITS)
        whats = np.array([str(what) for _, what in units.keys])
        for label in task.label_ids:
            of_label = whats == label
            estimate = dawid_skene(counts[of_label], prior)
            reliability[label] = estimate
            posterior[of_label] = estimate.posterior
    for unit, number in (decided or {}).items():
        posterior[unit] = 1 / len(units.labels) if number is None else 0.0
        if number is not None:
            posterior[unit, number] = 1.0
    if task.answer == "spans":
        posterior = _one_name_each(units, posterior)
    return Consensus(units, posterior, reliability)


def decided_units(consensus: Consensus) -> dict[int, dict[str | Span | None, str]]:
    """By review: the decided label of each of its units."""
    found: dict[int, dict[str | Span | None, str]] = {}
    for (review, what), label in zip(consensus.units.keys, consensus.decided, strict=True):
        found.setdefault(review, {})[what] = label
    return found


def _assumed(counts: Floats) -> Prior:
    _, teachers, labels = counts.shape
    wrong = (1 - _ASSUMED) / max(labels - 1, 1)
    errors = np.full((teachers, labels, labels), wrong * _ASSUMED_UNITS)
    for label in range(labels):
        errors[:, label, label] = _ASSUMED * _ASSUMED_UNITS
    return Prior(errors, np.full(labels, 1.0))


def _one_name_each(units: Units, posterior: Floats) -> Floats:
    """Of overlapping names the one with the highest probability stays; others become none."""
    kept: dict[int, list[Span]] = {}
    resolved = posterior.copy()
    no_name = len(units.labels) - 1
    named = [unit for unit in range(len(units.keys)) if posterior[unit].argmax() != no_name]
    for unit in sorted(named, key=lambda unit: -float(posterior[unit].max())):
        review, span = units.keys[unit]
        assert isinstance(span, tuple)
        if any(_overlap(span, other) for other in kept.get(review, [])):
            # It is a name only if the more probable one is none.
            resolved[unit] = posterior[unit] * (1 - float(posterior[unit].max()))
            resolved[unit, no_name] = 1 - resolved[unit, :no_name].sum()
        else:
            kept.setdefault(review, []).append(span)
    return resolved


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
