"""The choice of a route, over every combination of what it depends on."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from reviewmesh.enrich.routes import (
    LATE,
    NO_PRIMARY,
    TO_CANDIDATE,
    TO_PRIMARY,
    FallbackLimits,
    HoldReason,
    RouteChoice,
    RouteFacts,
    choose,
)
from reviewmesh.leaving.policy import Rule

LIMITS = FallbackLimits(after_s=30, spill_s=600)
MISSING = {"serving": 0.0, "just_missing": 30.0, "missing": 30.1}
AGE = {"young": 600.0, "late": 600.1}
RULE = {
    "forbidden": None,
    "patterns": Rule(("eu", "us"), masks_names=False, line=1),
    "names": Rule(("eu", "us"), masks_names=True, line=1),
    "elsewhere": Rule(("asia",), masks_names=False, line=1),
}
REGIONS = {"none": (), "eu": ("eu",), "us": ("us",), "both": ("us", "eu")}
NAMES = {"finder": True, "no_finder": False}
UNPAID = {"paid": None, "no_budget": HoldReason.NO_BUDGET, "spent": HoldReason.SPENT}
RESTS = {"fresh": None, "over_bound": HoldReason.OVER_BOUND, "failed": HoldReason.FAILED}
# Whether the review is a canary, whether a candidate serves, whether it failed on the review.
CANDIDATE = {
    "no_canary": (False, True, False),
    "canary": (True, True, False),
    "candidate_gone": (True, False, False),
    "candidate_failed": (True, True, True),
}

# The first row that fits is what happens; * fits everything.
TABLE = """
*             *      *          *     *          *          *           canary  candidate
serving       young  *          *     *          *          *           *       stays
just_missing  young  *          *     *          *          *           *       stays
*             *      forbidden  *     *          *          *           *       forbidden
*             *      elsewhere  *     *          *          *           *       no_worker
*             *      *          none  *          *          *           *       no_worker
*             *      names      *     no_finder  *          *           *       no_names
*             *      *          *     *          no_budget  *           *       no_budget
*             *      *          *     *          spent      *           *       spent
*             *      *          *     *          *          over_bound  *       over_bound
*             *      *          *     *          *          failed      *       failed
*             *      *          eu    *          *          *           *       eu
*             *      *          us    *          *          *           *       us
*             *      *          both  *          *          *           *       eu
"""
ROWS = [tuple(row.split()) for row in TABLE.strip().splitlines()]
COMBINATIONS = list(product(MISSING, AGE, RULE, REGIONS, NAMES, UNPAID, RESTS, CANDIDATE))


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda names: ", ".join(names))
def test_the_route_of_every_combination(combination: tuple[str, ...]) -> None:
    missing, age, rule, regions, names, budget_problem, pause, candidate = combination
    is_canary, candidate_serving, candidate_failed = CANDIDATE[candidate]
    known = RouteFacts(
        primary_missing_s=MISSING[missing],
        age_s=AGE[age],
        rule=RULE[rule],
        regions_serving=frozenset(REGIONS[regions]),
        names_serving=NAMES[names],
        budget_problem=UNPAID[budget_problem],
        pause=RESTS[pause],
        is_canary=is_canary,
        candidate_serving=candidate_serving,
        candidate_failed=candidate_failed,
    )
    outcome = OUTCOMES[_row_of(combination)[-1]]
    if outcome.region is not None:
        outcome = replace(outcome, reason=NO_PRIMARY if missing == "missing" else LATE)
    assert choose(known, LIMITS) == outcome


OUTCOMES = {
    "stays": TO_PRIMARY,
    "candidate": TO_CANDIDATE,
    "eu": RouteChoice(region="eu"),
    "us": RouteChoice(region="us"),
    **{held.value: RouteChoice(held=held) for held in HoldReason},
}


def _row_of(combination: tuple[str, ...]) -> tuple[str, ...]:
    return next(
        row
        for row in ROWS
        if all(cell in ("*", name) for cell, name in zip(row[:-1], combination, strict=True))
    )


def test_every_row_of_the_table_decides_something() -> None:
    assert {_row_of(combination) for combination in COMBINATIONS} == set(ROWS)
