"""Whether the consensus is better than the best teacher, on the reviews whose labels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from reviewmesh_models.evaluation.bootstrap import difference_of, score_of
from reviewmesh_models.evaluation.measures import measures_of
from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_models.evaluation.report import Difference, Score
from reviewmesh_models.evaluation.rows import DevRows, Row
from reviewmesh_models.evaluation.scores import Measure
from reviewmesh_models.labelling.answers import FIELD, Labels, output_of
from reviewmesh_models.labelling.results import Labelled, TaskLabels
from reviewmesh_worker.engines.interface import ItemFailure
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC

MEASURE: Final[Mapping[str, str]] = {
    SENTIMENT: "sentiment.accuracy",
    TOPIC: "topic.with_polarity_micro_f1",
    NER: "ner.span_f1",
}
_FAILED: Final = ItemFailure("NO_LABELS", "the teacher gave no labels", retryable=False)


class Gold(BaseModel):
    """Of one task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    rows: int
    teachers: dict[str, Score]
    consensus: Score
    best: str
    difference: Difference
    """The consensus minus the best teacher, which is known only from gold."""


def gold_of(found: Labelled) -> dict[str, Gold]:
    """By task that any gold row has labels of."""
    scored = {name: _score(found, of_task) for name, of_task in found.tasks.items()}
    return {name: one for name, one in scored.items() if one is not None}


def _score(found: Labelled, of_task: TaskLabels) -> Gold | None:
    name = of_task.task.name
    places = [
        at
        for at, review in enumerate(found.reviews)
        if review.gold is not None and FIELD[name] in review.gold and of_task.answered[at]
    ]
    if not places:
        return None
    rows = [{"text": found.reviews[at].text, **(found.reviews[at].gold or {})} for at in places]
    measured = {
        teacher: _measure(of_task, rows, [answers[at] for at in places])
        for teacher, answers in zip(found.teachers, of_task.answers, strict=True)
    }
    together = _measure(of_task, rows, [of_task.labels[at] for at in places])
    best = max(measured, key=lambda teacher: measured[teacher].value)
    return Gold(
        measure=MEASURE[name],
        rows=len(rows),
        teachers={teacher: score_of(measure) for teacher, measure in measured.items()},
        consensus=score_of(together),
        best=best,
        difference=difference_of(together, measured[best]),
    )


def _measure(of_task: TaskLabels, rows: Sequence[Row], said: Sequence[Labels | None]) -> Measure:
    name = of_task.task.name
    outcomes: list[Outcome] = [
        _FAILED if labels is None else output_of(name, labels) for labels in said
    ]
    reviews, entities = ([], rows) if name == NER else (rows, [])
    measures = measures_of(DevRows(reviews, entities, {}), {name: outcomes}, {name: of_task.task})
    return measures[MEASURE[name]]
