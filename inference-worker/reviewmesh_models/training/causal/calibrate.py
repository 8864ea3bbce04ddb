"""What is fitted after training, on rows held out: temperatures, a bias per mood, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.evaluation.rows import Row
from reviewmesh_models.training.causal.scoring import word_logprobs
from reviewmesh_models.training.fitting import (
    fit_bias,
    fit_temperature,
    fit_thresholds,
)
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.calibration import ChatCalibration, neutral_chat_calibration
from reviewmesh_worker.tasks.chat import ChatPrompts


def calibrate(
    model: Any, prompts: Mapping[str, ChatPrompts], reviews: Sequence[Row]
) -> ChatCalibration:
    """Neutral settings for a task that the model does not answer."""
    labels = {name: prompts[name].task.label_ids for name in prompts}
    fitted = neutral_chat_calibration(labels.get(SENTIMENT, ()), labels.get(TOPIC, ()))
    texts = [row["text"] for row in reviews]
    if SENTIMENT in prompts:
        logprobs = word_logprobs(model, prompts[SENTIMENT], texts)[:, 0]
        fitted = _with_sentiment(fitted, logprobs, reviews, labels[SENTIMENT])
    if TOPIC in prompts:
        logprobs = word_logprobs(model, prompts[TOPIC], texts)
        fitted = _with_topics(fitted, logprobs, reviews, labels[TOPIC])
    return fitted


def _with_sentiment(
    fitted: ChatCalibration,
    logprobs: NDArray[np.float64],
    reviews: Sequence[Row],
    labels: Sequence[str],
) -> ChatCalibration:
    gold = np.array([labels.index(row["sentiment"]) for row in reviews])
    bias = fit_bias(logprobs, gold)
    return replace(
        fitted,
        sentiment_bias=dict(zip(labels, bias.tolist(), strict=True)),
        sentiment_temperature=fit_temperature(logprobs + bias, gold),
    )


def _with_topics(
    fitted: ChatCalibration,
    logprobs: NDArray[np.float64],
    reviews: Sequence[Row],
    labels: Sequence[str],
) -> ChatCalibration:
    """`logprobs`: (reviews, topics, words), the first word is "none"."""
    about = [{topic["topic"] for topic in row["topics"]} for row in reviews]
    gold = np.array([[label in topics for label in labels] for topics in about])
    polarity = 1 + logprobs[:, :, 1:].argmax(-1)
    # A topic that is there counts as its likeliest polarity: which it is, is not fitted here.
    truth = np.where(gold, polarity, 0)
    words = logprobs.shape[2]
    temperature = fit_temperature(logprobs.reshape(-1, words), truth.reshape(-1))
    raised = np.exp((logprobs - logprobs.max(-1, keepdims=True)) / temperature)
    scores = 1 - raised[:, :, 0] / raised.sum(-1)
    thresholds = fit_thresholds(scores, gold)
    return replace(
        fitted,
        topic_temperature=temperature,
        topic_thresholds=dict(zip(labels, thresholds.tolist(), strict=True)),
    )
