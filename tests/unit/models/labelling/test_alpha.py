"""Krippendorff's alpha against his own worked examples and against its definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from reviewmesh_models.labelling.alpha import NOT_SAID, alpha, interval_of

# "Computing Krippendorff's Alpha-Reliability" (2011), part C: four observers, twelve units.
OBSERVERS = ("123321412...", "12332241 25.3", ".33323422 51.", "123324412 51.")


def parsed(*observers: str) -> NDArray[np.int64]:
    """(units, observers) of a string each; a dot is a value that is missing."""
    rows = [
        [NOT_SAID if one == "." else int(one) for one in row.replace(" ", "")] for row in observers
    ]
    return np.array(rows).T


def each_its_own(said: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.arange(len(said))


def by_definition(said: NDArray[np.int64]) -> float:
    """One less observed over expected disagreement, of pairs of values, with no matrix."""
    units = [[value for value in unit if value != NOT_SAID] for unit in said.tolist()]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    observed = sum(
        2 * sum(a != b for a, b in combinations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(values)
    expected = sum(2 for a, b in combinations(values, 2) if a != b) / (
        len(values) * (len(values) - 1)
    )
    return float(1 - observed / expected)


def test_two_observers_and_two_values() -> None:
    # Part A of the same text: coincidences 10, 4, 4 and 2, alpha = 0.095.
    said = parsed("0100000000", "1111100000")
    assert alpha(said, each_its_own(said), 10, 2).value == pytest.approx(0.095, abs=0.0005)


def test_four_observers_many_values_some_missing() -> None:
    said = parsed(*OBSERVERS)
    assert alpha(said, each_its_own(said), 12, 6).value == pytest.approx(0.743, abs=0.0005)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_its_definition_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    said = generator.integers(NOT_SAID, 3, (25, 3))
    review = generator.integers(0, 6, 25)
    assert alpha(said, review, 6, 3).value == pytest.approx(by_definition(said))


def test_the_interval_holds_the_value_and_shrinks_with_more_reviews() -> None:
    generator = np.random.default_rng(1)

    def interval(reviews: int) -> tuple[float, float, float]:
        truth = generator.integers(0, 3, reviews)
        noise = generator.integers(0, 3, (reviews, 3))
        said = np.where(generator.random((reviews, 3)) < 0.7, truth[:, None], noise)
        found = interval_of(alpha(said, each_its_own(said), reviews, 3))
        assert found is not None
        return found.low, found.value, found.high

    few, many = interval(50), interval(2000)
    assert few[0] < few[1] < few[2] and many[0] < many[1] < many[2]
    assert many[2] - many[0] < (few[2] - few[0]) / 3


def test_without_a_second_value_there_is_none() -> None:
    said = np.zeros((5, 2), int)
    assert interval_of(alpha(said, each_its_own(said), 5, 2)) is None
