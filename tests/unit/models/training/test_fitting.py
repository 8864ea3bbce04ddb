"""Fits to held-out rows: known answers, and shyness where rows are few."""

from __future__ import annotations

import numpy as np
import pytest

from reviewmesh_models.training.fitting import fit_bias, fit_temperature, fit_thresholds


def _said(random: np.random.Generator, rows: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities that are right, and gold labels drawn from them."""
    logits = random.normal(0, 2, (rows, labels))
    logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    gold = np.array([random.choice(labels, p=np.exp(row)) for row in logprobs])
    return logprobs, gold


@pytest.mark.parametrize("boldness", [0.7, 1.0, 1.6])
def test_a_model_that_is_too_bold_is_cooled(boldness: float) -> None:
    said, gold = _said(np.random.default_rng(1), 4000, 4)
    assert fit_temperature(said * boldness, gold) == pytest.approx(boldness, abs=0.1)


def test_a_label_that_is_said_too_seldom_is_helped() -> None:
    said, gold = _said(np.random.default_rng(2), 2000, 3)
    rare = int(np.bincount(gold).argmin())
    said[:, rare] -= 2
    bias = fit_bias(said, gold)
    assert bias[rare] > 0.5
    assert bias[np.bincount(gold).argmax()] == 0


def test_a_model_without_a_lean_gets_little_bias() -> None:
    said, gold = _said(np.random.default_rng(3), 4000, 3)
    assert np.abs(fit_bias(said, gold)).max() < 0.35


def test_thresholds_of_probabilities_are_half_of_the_f1_that_is_reached() -> None:
    random = np.random.default_rng(4)
    scores = random.beta(0.5, 1.5, (5000, 3))
    gold = random.random((5000, 3)) < scores
    best = max(
        2 * ((scores >= t) & gold).sum() / ((scores >= t).sum() + gold.sum())
        for t in np.linspace(0.2, 0.7, 51)
    )
    assert fit_thresholds(scores, gold) == pytest.approx(best / 2, abs=0.06)


def test_a_topic_with_few_rows_stays_near_the_common_threshold() -> None:
    random = np.random.default_rng(5)
    scores = random.beta(0.5, 1.5, (3000, 2))
    gold = random.random((3000, 2)) < scores
    few = gold.copy()
    few[:, 1] = False
    few[:3, 1], scores[:3, 1] = True, 0.69
    thresholds = fit_thresholds(scores, few)
    assert abs(thresholds[1] - thresholds[0]) < 0.15
