"""The likeliest labels of units that several teachers labelled, and how reliable each teacher is.

Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm",
Applied Statistics 28(1), 1979. Each teacher has a matrix of error rates: how often it says label l
of a unit whose label is j. Labels of units and error rates are estimated alternately.

Own code, because the one maintained library (crowd-kit) brings pandas and scikit-learn for it, and
takes neither prior counts nor several answers of one teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from reviewmesh_models.evaluation.scores import Floats

_MOST_TURNS: Final = 500
_SETTLED: Final = 1e-7
"""Converged: no probability changes by more than this in an iteration."""
_LEAST: Final = 1e-12
"""Instead of zero in logarithms."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Counts that are added to those of the data, as if so many units had been seen before."""

    errors: Floats
    """(teachers, labels, labels): is, said."""
    marginals: Floats
    """(labels)"""


@dataclass(frozen=True, slots=True)
class Estimate:
    marginals: Floats
    """(labels): how common each is."""
    errors: Floats
    """(teachers, labels, labels): how often a teacher says the last of what is the second."""
    posterior: Floats
    """(units, labels): how probable each label of a unit is."""


def dawid_skene(counts: Floats, prior: Prior | None = None) -> Estimate:
    """Estimate from `counts` (units, teachers, labels): how often each teacher said each label.

    A unit of which a teacher said nothing has zeros there. Without a prior it is the maximum of the
    likelihood that is nearest to the vote; with one, of the posterior.
    """
    _, teachers, labels = counts.shape
    added = prior or Prior(np.zeros((teachers, labels, labels)), np.zeros(labels))
    posterior = _shares(counts.sum(1))
    for _ in range(_MOST_TURNS):
        marginals = _shares(posterior.sum(0) + added.marginals)
        errors = _shares(np.einsum("uj,utl->tjl", posterior, counts) + added.errors)
        before, posterior = posterior, posterior_of(counts, marginals, errors)
        if np.abs(posterior - before).max(initial=0.0) < _SETTLED:
            break
    return Estimate(marginals, errors, posterior)


def posterior_of(counts: Floats, marginals: Floats, errors: Floats) -> Floats:
    """(units, labels) by Bayes' rule, from what is known of labels and teachers."""
    logs = np.log(np.maximum(errors, _LEAST))
    joint = np.log(np.maximum(marginals, _LEAST)) + np.einsum("utl,tjl->uj", counts, logs)
    likely: Floats = np.exp(joint - joint.max(1, keepdims=True))
    return _shares(likely)


def _shares(counts: Floats) -> Floats:
    """Normalised along the last axis; uniform where all are zero."""
    sums = counts.sum(-1, keepdims=True)
    shares: Floats = np.where(sums > 0, counts / np.where(sums > 0, sums, 1), 1 / counts.shape[-1])
    return shares
