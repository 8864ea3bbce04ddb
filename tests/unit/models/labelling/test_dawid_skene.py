"""Dawid-Skene against its authors' own example, and against a likelihood written out by hand."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest

from reviewmesh_models.evaluation.scores import Floats
from reviewmesh_models.labelling.dawid_skene import Prior, dawid_skene

# Table 1 of Dawid and Skene (1979): 45 patients, classes 1 to 4. The first observer judged each
# three times, the other four once.
PATIENTS = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|
222 2 2 2 3|232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|
111 1 1 1 1|111 1 1 1 1|222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|
111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3|
111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1|
111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def anaesthetists() -> Floats:
    patients = "".join(PATIENTS.split("\n")).split("|")
    counts = np.zeros((len(patients), 5, 4))
    for unit, patient in enumerate(patients):
        for observer, said in enumerate(patient.split()):
            for label in said:
                counts[unit, observer, int(label) - 1] += 1
    return counts


def log_likelihood(
    said: list[tuple[int, ...]], marginals: list[float], errors: list[list[list[float]]]
) -> float:
    """Equation 2.7 of the paper, written out."""
    total = 0.0
    for unit in said:
        likely = 0.0
        for label, share in enumerate(marginals):
            joint = float(share)
            for teacher, word in enumerate(unit):
                joint *= float(errors[teacher][label][word])
            likely += joint
        total += math.log(likely)
    return total


def moved(shares: list[float], generator: random.Random) -> list[float]:
    """Shares a little elsewhere, that still add up to one."""
    other = [max(share + generator.uniform(-0.01, 0.01), 1e-9) for share in shares]
    return [share / sum(other) for share in other]


def test_the_example_of_the_paper() -> None:
    estimate = dawid_skene(anaesthetists())
    # Its table 2, and 3: as common as this, and the patients that its authors single out.
    assert estimate.marginals == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    assert estimate.posterior[0] == pytest.approx([1, 0, 0, 0], abs=1e-3)
    assert estimate.posterior[10] == pytest.approx([0, 0, 0, 1], abs=1e-3)
    assert estimate.errors.sum(-1) == pytest.approx(np.ones((5, 4)))


def test_no_parameters_near_the_estimate_are_likelier() -> None:
    generator = random.Random(3)
    truth = [generator.choice((0, 0, 1)) for _ in range(60)]
    said = [
        tuple(label if generator.random() < skill else 1 - label for skill in (0.9, 0.8, 0.7))
        for label in truth
    ]
    counts = np.array([[[word == label for label in (0, 1)] for word in unit] for unit in said])
    estimate = dawid_skene(counts.astype(float))
    marginals, errors = estimate.marginals.tolist(), estimate.errors.tolist()
    best = log_likelihood(said, marginals, errors)
    for _ in range(300):
        tried = [[moved(row, generator) for row in teacher] for teacher in errors]
        assert log_likelihood(said, moved(marginals, generator), tried) <= best + 1e-6
    far = [[[0.6, 0.4], [0.4, 0.6]]] * 3
    assert log_likelihood(said, [0.5, 0.5], far) < best


def test_the_posterior_is_bayes_rule() -> None:
    counts = np.array(
        [[[1, 0], [0, 1]], [[1, 0], [1, 0]], [[0, 1], [0, 1]], [[1, 0], [0, 0]]], float
    )
    prior = Prior(np.array([[[9, 1], [1, 9]], [[7, 3], [3, 7]]]) * 1e6, np.array([3e6, 1e6]))
    found = dawid_skene(counts, prior).posterior
    shares, errors = (0.75, 0.25), ([[0.9, 0.1], [0.1, 0.9]], [[0.7, 0.3], [0.3, 0.7]])
    for unit, teachers in enumerate(counts):
        joint = [
            shares[label]
            * math.prod(
                errors[teacher][label][word]
                for teacher, word in product((0, 1), (0, 1))
                if teachers[teacher][word]
            )
            for label in (0, 1)
        ]
        assert found[unit] == pytest.approx([one / sum(joint) for one in joint], abs=1e-5)


def test_a_label_that_nobody_says_is_not_found() -> None:
    counts = np.zeros((4, 2, 3))
    counts[:, :, 0] = 1
    found = dawid_skene(counts)
    assert found.posterior.argmax(1).tolist() == [0, 0, 0, 0]
    assert np.isfinite(found.errors).all()
