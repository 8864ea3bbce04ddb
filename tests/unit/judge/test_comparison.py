"""What the answers of a rollout add up to."""

from __future__ import annotations

import json
import random
from importlib import resources
from typing import Any

import pytest

from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from reviewmesh.judge.answers import ALL, JudgedAnswer, judged_answer
from reviewmesh.judge.bounds import Bounds
from reviewmesh.judge.comparison import (
    COST,
    DISAGREEMENT,
    FAILURES,
    LABELS,
    LATENCY,
    MAX_SLICES,
    METRICS,
    RolloutComparison,
    alpha_of,
)

ROLLOUT = "topic-1"


def answer(
    offset: int,
    said: str | None = "food",
    candidate: bool = False,
    language: str = "en",
    error: str | None = None,
    latency_ms: float = 10.0,
    model: str | None = None,
    cost_micros: int | None = None,
) -> JudgedAnswer:
    is_canary = candidate or error is not None
    labels = frozenset() if said is None else frozenset([said])
    return JudgedAnswer(
        key=(0, offset),
        language=language,
        outcome=None if said is None else labels,
        labels=labels,
        latency_ms=latency_ms,
        route=CANDIDATE if candidate else PRIMARY,
        rollout=ROLLOUT if is_canary else None,
        candidate_error=error,
        model=model or ("m@1" if candidate else "own@1"),
        cost_micros=cost_micros,
    )


def counts(shown: RolloutComparison, metric: str, name: str = ALL) -> dict[float, int]:
    found = shown.observations.get((metric, name))
    return {} if found is None else dict(found.counts)


def examples(schema: str) -> list[dict[str, Any]]:
    text = resources.files("reviewmesh_schemas").joinpath(f"examples/{schema}.json").read_text()
    found: list[dict[str, Any]] = json.loads(text)
    return found


def comparison() -> RolloutComparison:
    return RolloutComparison(ROLLOUT, Bounds(), slices=[])


def test_both_answers_to_a_review_make_a_pair_in_any_order() -> None:
    shown = comparison()
    shown.add_own_answer(answer(1))
    shown.add_copied_answer(answer(1, candidate=True))
    shown.add_copied_answer(answer(2, "price", candidate=True))
    shown.add_own_answer(answer(2))
    shown.add_own_answer(answer(3))
    assert (shown.answered, shown.compared) == (3, 2)
    assert counts(shown, DISAGREEMENT) == {0.0: 1, 1.0: 1}
    assert counts(shown, DISAGREEMENT, "en") == {0.0: 1, 1.0: 1}


def test_a_copy_that_comes_twice_counts_once() -> None:
    shown = comparison()
    shown.add_own_answer(answer(1))
    for _ in range(2):
        shown.add_copied_answer(answer(1, candidate=True))
    assert shown.compared == 1


def test_a_review_that_is_answered_again_shows_nothing_new() -> None:
    """A reset of the enricher's group answers all reviews again, copies too."""
    shadow, canary = comparison(), comparison()
    for _ in range(20):
        for offset in range(40):
            shadow.add_own_answer(answer(offset))
            said = "food" if offset >= 10 else "price"
            shadow.add_copied_answer(answer(offset, said, candidate=True))
            canary.add_answer(answer(2 * offset))
            is_late = offset < 2
            error = "late" if is_late else None
            canary.add_answer(answer(2 * offset + 1, candidate=not is_late, error=error))
    assert (shadow.answered, shadow.compared) == (40, 40)
    assert counts(shadow, DISAGREEMENT) == {0.0: 30, 1.0: 10}
    assert (canary.answered, canary.canaries) == (80, 40)
    assert counts(canary, FAILURES) == {0.0: 38, 1.0: 2}


def test_another_model_is_seen_also_in_an_answer_that_comes_again() -> None:
    shadow, canary = comparison(), comparison()
    for model in ("m@1", "m@2"):
        shadow.add_copied_answer(answer(1, candidate=True, model=model))
        canary.add_answer(answer(1, candidate=True, model=model))
    assert shadow.changed_model == canary.changed_model == "m@2"


def test_failures_that_come_in_bursts_are_held_against_canaries_as_often_as_they_are() -> None:
    """Workers that are out fail many reviews at once, a candidate that hangs as well."""
    for share in (0.05, 0.25, 0.8):
        rng, shown = random.Random(7), comparison()
        offset = own = failed = 0
        while offset < 30_000:
            offset += 1
            if rng.random() < share:
                shown.add_answer(answer(offset, candidate=True))
                continue
            burst = 25 if rng.random() < 0.005 else 0
            own, failed = own + 1 + burst, failed + burst
            shown.add_answer(answer(offset))
            for _ in range(burst):
                offset += 1
                shown.add_answer(answer(offset, None))
        found = shown.observations[FAILURES, ALL]
        assert failed / own > 0.1
        assert found.mean == pytest.approx(-failed / own, abs=0.03)


def test_a_candidate_that_fails_in_bursts_at_a_large_share_is_seen_to() -> None:
    rng, shown = random.Random(7), comparison()
    offset = canaries = failed = 0
    while offset < 40_000:
        offset += 1
        if rng.random() > 0.9:
            shown.add_answer(answer(offset))
            continue
        burst = 25 if rng.random() < 0.005 else 0
        canaries, failed = canaries + 1 + burst, failed + burst
        shown.add_answer(answer(offset, candidate=True))
        for _ in range(burst):
            offset += 1
            shown.add_answer(answer(offset, error="no answer within 10 s"))
    found = shown.observations[FAILURES, ALL]
    assert failed / canaries > 0.1
    assert found.mean == pytest.approx(failed / canaries, abs=0.03)


def test_a_candidate_that_fails_differs_and_where_the_own_workers_fail_nothing_is_shown() -> None:
    shown = comparison()
    for offset, own, copy in ((1, "food", None), (2, None, "food")):
        shown.add_own_answer(answer(offset, own))
        shown.add_copied_answer(answer(offset, copy, candidate=True))
    assert counts(shown, DISAGREEMENT) == {1.0: 1}


def test_canaries_are_held_against_reviews_of_the_own_workers_each_used_once() -> None:
    shown = comparison()
    for offset in range(3):
        shown.add_answer(answer(offset))
    shown.add_answer(answer(10, candidate=True, latency_ms=21.0))
    shown.add_answer(answer(11, error="no answer within 10 s"))
    shown.add_answer(answer(12, candidate=True))
    shown.add_answer(answer(13, candidate=True))
    assert shown.canaries == 4
    assert counts(shown, FAILURES) == {0.0: 2, 1.0: 1}
    assert counts(shown, LATENCY) == {1.0: 1, 0.0: 1}
    shown.add_answer(answer(3, None))
    assert counts(shown, FAILURES) == {0.0: 2, 1.0: 1, -1.0: 1}


def test_answers_of_the_fallback_and_of_other_rollouts_are_held_against_nothing() -> None:
    shown = comparison()
    shown.add_answer(answer(1, candidate=True))
    for route, rollout in (("fallback", None), (PRIMARY, "topic-0"), (CANDIDATE, "topic-0")):
        other = answer(2)
        shown.add_answer(
            JudgedAnswer(other.key, "en", other.outcome, other.labels, 1.0, route, rollout, None)
        )
    assert counts(shown, FAILURES) == {}


def test_costs_are_compared_with_what_rounding_up_may_add() -> None:
    shown = comparison()
    pairs = ((10, 16), (10, 17), (0, 0), (0, 1), (0, 2), (1, 2), (1, 3))
    for offset, (own, candidate) in enumerate(pairs):
        shown.add_answer(answer(offset, cost_micros=own))
        shown.add_answer(answer(10 + offset, candidate=True, cost_micros=candidate))
    assert counts(shown, COST) == {0.0: 4, 1.0: 3}
    assert counts(shown, COST, "en") == counts(shown, COST)
    assert shown.unpriced == 0


def test_answers_that_failed_are_held_against_each_other_over_failures_alone() -> None:
    shown = comparison()
    shown.add_answer(answer(1, cost_micros=1))
    shown.add_answer(answer(2, error="gone", cost_micros=9))
    shown.add_answer(answer(3, None))
    shown.add_answer(answer(4, candidate=True, cost_micros=9))
    assert shown.observations.keys() == {(FAILURES, ALL), (FAILURES, "en")}
    assert shown.unpriced == 0


@pytest.mark.parametrize(("own", "candidate"), [(None, 9), (9, None), (None, None)])
def test_cost_is_not_judged_once_one_is_not_known(own: int | None, candidate: int | None) -> None:
    shown = comparison()
    for offset in range(200):
        shown.add_answer(answer(offset, cost_micros=1))
        shown.add_answer(answer(1000 + offset, candidate=True, cost_micros=9))
    assert shown.shows_above(COST, 0.5, 0.025) == ALL
    shown.add_answer(answer(300, cost_micros=own))
    shown.add_answer(answer(1300, candidate=True, cost_micros=candidate))
    assert shown.unpriced == 1
    assert shown.shows_above(COST, 0.5, 0.025) == ""
    assert shown.verdict(COST, ALL, 0.025) is None


def test_a_language_beyond_the_eighth_is_judged_with_the_others_only() -> None:
    shown = comparison()
    for number in range(MAX_SLICES + 2):
        language = f"l{number}"
        shown.add_own_answer(answer(number, language=language))
        shown.add_copied_answer(answer(number, candidate=True, language=language))
    assert len(shown.slices) == MAX_SLICES
    assert counts(shown, DISAGREEMENT) == {0.0: MAX_SLICES + 2}


def test_labelled_texts_tell_who_is_right_more_often() -> None:
    shown = comparison()
    for own, candidate in ((True, True), (True, False), (False, True), (False, False)):
        shown.add_labelled_text("en", own, candidate)
    assert counts(shown, LABELS) == {0.0: 2, 1.0: 1, -1.0: 1}
    for _ in range(60):
        shown.add_labelled_text("en", own_right=True, candidate_right=False)
    assert shown.shows_above(LABELS, 0.0, 0.025) == ALL


def test_the_time_of_an_answer_is_told_also_by_an_engine_without_a_queue() -> None:
    result = next(one for one in examples("topic_result") if one["status"] == "OK")
    for queue_ms, inference_ms, latency_ms in (
        (2.0, 12.0, 14.0),
        (None, 12.0, 12.0),
        (2.0, None, None),
    ):
        times = {"queue_ms": queue_ms, "inference_ms": inference_ms}
        told = result | {"lineage": result["lineage"] | times}
        assert judged_answer("topic", told).latency_ms == latency_ms
    assert judged_answer("topic", result | {"status": "FAILED"}).latency_ms is None


def test_the_cost_of_an_answer_is_that_of_its_lineage() -> None:
    result = next(one for one in examples("topic_result") if one["status"] == "OK")
    for cost_micros in (None, 0, 120):
        told = result | {"lineage": result["lineage"] | {"cost_micros": cost_micros}}
        assert judged_answer("topic", told).cost_micros == cost_micros
        assert judged_answer("topic", told | {"status": "FAILED"}).cost_micros is None


def test_alpha_is_spent_once() -> None:
    spent = alpha_of(0.025, ALL) + MAX_SLICES * alpha_of(0.025, "da")
    assert len(METRICS) * spent == pytest.approx(0.025)


def test_another_model_that_answers_as_the_candidate_is_noticed() -> None:
    shown = comparison()
    shown.add_copied_answer(answer(1, candidate=True))
    assert (shown.model, shown.changed_model) == ("m@1", None)
    shown.add_copied_answer(answer(2, candidate=True, model="m@2"))
    assert shown.changed_model == "m@2"


def test_kappa_of_each_label() -> None:
    shown = comparison()
    pairs = [("a", "a")] * 4 + [("b", "b")] * 4 + [("a", "b"), ("b", "a")]
    for offset, (own, copy) in enumerate(pairs):
        shown.add_own_answer(answer(offset, own))
        shown.add_copied_answer(answer(offset, copy, candidate=True))
    # 8 of 10 agree, 5 of 10 would by chance.
    kappas = shown.agreement[ALL].kappas()
    assert {label: round(kappa, 9) for label, kappa in kappas.items()} == {"a": 0.6, "b": 0.6}
