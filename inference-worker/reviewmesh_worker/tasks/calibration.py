"""Calibration of the probabilities of an answer's words: `calibration.json` in a package.

Fitted after training, on rows that are used neither for training nor for scores, and applied by the
engine. A word's log-probability is that of its token at its position in the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from reviewmesh_worker.tasks.definition import NO_POLARITY

CALIBRATION_FILE: Final = "calibration.json"


class CalibrationError(ValueError):
    """An invalid `calibration.json`, or one for other labels."""


@dataclass(frozen=True, slots=True)
class ChatCalibration:
    sentiment_temperature: float
    sentiment_bias: Mapping[str, float]
    """Added to a label's log-probability before the temperature divides it."""
    topic_temperature: float
    topic_thresholds: Mapping[str, float]
    """A topic is given if its score, the probability of anything but "none", reaches this."""

    def sentiment_scores(self, logprobs: Mapping[str, float]) -> dict[str, float]:
        """A probability per label from the log-probabilities of the labels' words."""
        biased = {
            label: value + self.sentiment_bias.get(label, 0.0) for label, value in logprobs.items()
        }
        return _softmax(biased, self.sentiment_temperature)

    def topic_score(self, logprobs: Mapping[str, float]) -> tuple[float, str]:
        """How likely a topic is there, and its polarity, from the log-probabilities of its words.

        `logprobs` are those of "none" and of each polarity at the topic's place in the answer.
        """
        scores = _softmax(logprobs, self.topic_temperature)
        polarities = {word: score for word, score in scores.items() if word != NO_POLARITY}
        return sum(polarities.values()), max(polarities, key=lambda word: polarities[word])

    def write(self, folder: Path) -> None:
        written = json.dumps(asdict(self), indent=2) + "\n"
        (folder / CALIBRATION_FILE).write_text(written, encoding="utf-8")


def neutral_chat_calibration(sentiments: Iterable[str], topics: Iterable[str]) -> ChatCalibration:
    """The model's own probabilities, and a threshold of 0.5 for every topic."""
    return ChatCalibration(
        sentiment_temperature=1.0,
        sentiment_bias=dict.fromkeys(sentiments, 0.0),
        topic_temperature=1.0,
        topic_thresholds=dict.fromkeys(topics, 0.5),
    )


def read_calibration(
    folder: Path, sentiments: Iterable[str], topics: Iterable[str]
) -> ChatCalibration:
    """The calibration in a package that answers these labels; none of a task it does not answer.

    Raises CalibrationError.
    """
    file = folder / CALIBRATION_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return ChatCalibration(
            sentiment_temperature=_positive(content["sentiment_temperature"]),
            sentiment_bias=_numbers(content["sentiment_bias"], sentiments),
            topic_temperature=_positive(content["topic_temperature"]),
            topic_thresholds=_numbers(content["topic_thresholds"], topics),
        )
    except OSError as error:
        raise CalibrationError(
            f"expected the package's calibration at {file}, {error.strerror}; `reviewmesh-models "
            "train` writes it"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(
            f"{file}: expected temperatures, biases and thresholds, {error!r}; train the package "
            "anew for these tasks"
        ) from error


def _softmax(logprobs: Mapping[str, float], temperature: float) -> dict[str, float]:
    highest = max(logprobs.values())
    raised = {word: math.exp((value - highest) / temperature) for word, value in logprobs.items()}
    whole = sum(raised.values())
    return {word: value / whole for word, value in raised.items()}


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError(f"expected a temperature above 0, found {number}")
    return number


def _numbers(values: Any, labels: Iterable[str]) -> dict[str, float]:
    return {label: _number(values[label]) for label in labels}


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, found {number}")
    return number
