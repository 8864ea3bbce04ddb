"""How good a package is in each language: polarity, topics against English, names, calibration.

Two of the scores of all languages together are made of each: the mean and the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from reviewmesh_models.evaluation.measures import (
    Outcomes,
    outputs_of,
    predicted_labels,
    stated_of,
)
from reviewmesh_models.evaluation.rows import Row
from reviewmesh_models.evaluation.scores import (
    Floats,
    Measure,
    calibration_error,
    entity_parts,
    label_parts,
    macro_f1,
    micro_f1,
    topic_parts,
)
from reviewmesh_worker.engines.interface import NerOutput, TopicOutput
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import Task

ENGLISH: Final = "en"
_POLAR: Final = ("positive", "negative")
_NO_OPINION: Final = "neutral"
"""What the rows say of a sentence in which no opinion was marked: it need not mean none."""
_ERROR: Final = "calibration_error"
_Together = Callable[[Floats], Floats]


def translated_measures(
    rows: Sequence[Row], outcomes: Outcomes, tasks: Mapping[str, Task]
) -> dict[str, Measure]:
    """Scores of rows that are translations of one another, for the tasks that were predicted.

    `sentiment.polarity_macro_f1` is of positive and negative, on the rows that are either; another
    answer is a miss. `topic.agreement_micro_f1` takes the answer to the English sentence for gold.
    """
    found: dict[str, Measure] = {}
    if SENTIMENT in outcomes:
        gold = [row["sentiment"] for row in rows]
        parts = label_parts(gold, predicted_labels(outcomes[SENTIMENT]), _POLAR)
        parts[[label not in _POLAR for label in gold]] = 0
        found["sentiment.polarity_macro_f1"] = macro_f1(parts)
        stated = stated_of(SENTIMENT, rows, outcomes[SENTIMENT])
        found[f"sentiment.{_ERROR}"] = calibration_error(
            [() if label == _NO_OPINION else one for label, one in zip(gold, stated, strict=True)]
        )
    if TOPIC in outcomes:
        outputs = outputs_of(outcomes[TOPIC], TopicOutput, TopicOutput(()))
        english = {
            row["row"]: [{"topic": topic.id} for topic in output.topics]
            for row, output in zip(rows, outputs, strict=True)
            if row["language"] == ENGLISH
        }
        wanted = [{"topics": english.get(row["row"], [])} for row in rows]
        counts = topic_parts(wanted, outputs, tasks[TOPIC].label_ids)
        counts[[row["row"] not in english for row in rows]] = 0
        found["topic.agreement_micro_f1"] = micro_f1(counts)
    return found


def entity_measures(
    rows: Sequence[Row], outcomes: Outcomes, tasks: Mapping[str, Task]
) -> dict[str, Measure]:
    outputs = outputs_of(outcomes[NER], NerOutput, NerOutput(()))
    return {"ner.span_f1": micro_f1(entity_parts(rows, outputs, tasks[NER].label_ids))}


def of_all_languages(measures: Mapping[str, Measure], rows: Sequence[Row]) -> dict[str, Measure]:
    """Mean and worst over the languages but English, by `<task>.languages_<mean or worst>_…`.

    A calibration error is of all rows together, and in the language where it is worst.
    """
    languages = sorted({row["language"] for row in rows} - {ENGLISH})
    found: dict[str, Measure] = {}
    for name, measure in measures.items():
        task, score = name.split(".")
        error = score == _ERROR
        whole = measure if error else _over(measure, rows, languages, _mean)
        found[f"{task}.languages_{'all' if error else 'mean'}_{score}"] = whole
        worst = _over(measure, rows, languages, _largest if error else _least)
        found[f"{task}.languages_worst_{score}"] = worst
    return found


def _over(
    measure: Measure, rows: Sequence[Row], languages: Sequence[str], together: _Together
) -> Measure:
    """One measure of those of each language."""
    count, columns = measure.parts.shape
    parts = np.zeros((count, len(languages), columns))
    place = {language: at for at, language in enumerate(languages)}
    for number, row in enumerate(rows):
        if row["language"] in place:
            parts[number, place[row["language"]]] = measure.parts[number]

    def scores(sums: Floats) -> Floats:
        each = measure.of_sums(sums.reshape(*sums.shape[:-1], len(languages), columns))
        return together(each)

    return Measure(parts.reshape(count, -1), scores)


def _mean(scores: Floats) -> Floats:
    out: Floats = scores.mean(-1)
    return out


def _largest(scores: Floats) -> Floats:
    out: Floats = scores.max(-1)
    return out


def _least(scores: Floats) -> Floats:
    out: Floats = scores.min(-1)
    return out
