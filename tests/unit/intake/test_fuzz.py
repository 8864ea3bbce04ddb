"""A little of `bench.fuzz`, of which a million cases are run by hand."""

from __future__ import annotations

import pytest

from bench.fuzz.run import fuzz


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_strangers_write_has_one_outcome_each(seed: int) -> None:
    report = fuzz(1_000, seed)
    assert sum(report.outcomes.values()) == 1_000
    expected = {"reviews.accepted", "forwarded", "dropped", "MALFORMED", "INVALID", "TOMBSTONE"}
    assert report.outcomes.keys() >= expected
