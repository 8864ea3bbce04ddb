"""A package on labelled rows, hostile texts and golden rows, through the engine that serves it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from reviewmesh_models.evaluation.attack import FLIPPED_TASKS, attack, families_of, flips_of
from reviewmesh_models.evaluation.bootstrap import difference_of, percentile_of, score_of
from reviewmesh_models.evaluation.distributions import distributions_of
from reviewmesh_models.evaluation.golden import golden_texts, judge_golden
from reviewmesh_models.evaluation.languages import (
    entity_measures,
    of_all_languages,
    translated_measures,
)
from reviewmesh_models.evaluation.measures import (
    Outcomes,
    baselines_of,
    bins_of,
    confusion_of,
    label_parts_of,
    measures_of,
    predicted_labels,
    rows_of,
    stated_of,
)
from reviewmesh_models.evaluation.predictions import (
    IN_FLIGHT,
    Outcome,
    Predictions,
    Predictor,
    Step,
)
from reviewmesh_models.evaluation.report import (
    Against,
    DataFile,
    Golden,
    LabelScores,
    PackageName,
    Report,
    Score,
    Speed,
    TaskMade,
)
from reviewmesh_models.evaluation.rows import DevRows, Row, language_rows
from reviewmesh_models.evaluation.scores import Measure, counts_of, hits, micro_f1, share
from reviewmesh_models.evaluation.shared_labels import measures_on
from reviewmesh_models.evaluation.slices import slices_of
from reviewmesh_worker.engines.interface import Engine
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import Task

_LATENCY_TEXTS: Final = 100
_ANSWERS_A_SAMPLE: Final = 32
"""The time that so many answers take is one sample of the speed."""


@dataclass(frozen=True, slots=True)
class RowPredictions:
    """The predictions of a package for the rows."""

    package: PackageName
    texts: Sequence[str]
    """The reviews; the entity rows' texts where no task is scored on reviews."""
    predictions: Predictions
    """Every task of each of these texts."""
    outcomes: Outcomes
    """Of the rows that each task is scored on."""
    labels: Mapping[str, Collection[str]]
    """By task, those that it knows."""


def evaluate_engine(
    engine: Engine,
    rows: DevRows,
    tasks: Mapping[str, Task],
    command: str,
    step: Step,
    against: Sequence[Engine] = (),
    quick: bool = False,
) -> Report:
    """The whole report of the package behind an engine that has not started.

    `tasks` are all that there are; scored are those that the engine answers. `against` are
    engines of other packages, for the same rows. A quick report has no hostile texts, nor the
    project's own rows in other languages. Raises EngineLoadError and EngineDead.
    """
    return asyncio.run(
        _evaluate(
            engine,
            rows,
            all_tasks=tasks,
            command=command,
            step=step,
            against=against,
            quick=quick,
        )
    )


def reference_of(engine: Engine, rows: DevRows, step: Step) -> dict[str, dict[str, dict[str, int]]]:
    """The distributions of a report. Raises EngineLoadError and EngineDead."""

    async def predicted() -> Predictions:
        await engine.start()
        try:
            return await Predictor(engine, step).predict("reviews", list(engine.tasks), texts)
        finally:
            await engine.close()

    texts = _texts_of(rows)
    return distributions_of(texts, asyncio.run(predicted()).outcomes)


def name_of(engine: Engine) -> PackageName:
    """The package behind an engine, by the lineage of its answers."""
    about = next(iter(engine.tasks.values()))
    return PackageName(
        name=about.model,
        version=about.model_version,
        digest=about.model_digest,
        engine=about.engine,
    )


async def _start_and_predict(engine: Engine, rows: DevRows, step: Step) -> RowPredictions:
    """The predictions of the package behind an engine that has not started."""
    await engine.start()
    try:
        return await _predict_rows(engine, Predictor(engine, step), rows)
    finally:
        await engine.close()


async def _evaluate(
    engine: Engine,
    rows: DevRows,
    all_tasks: Mapping[str, Task],
    command: str,
    step: Step,
    against: Sequence[Engine],
    quick: bool,
) -> Report:
    started = time.monotonic()
    tasks = {name: task for name, task in all_tasks.items() if name in engine.tasks}
    await engine.start()
    try:
        predictor = Predictor(engine, step)
        on_rows = await _predict_rows(engine, predictor, rows)
        attacked = (
            None
            if quick
            else await attack(predictor, on_rows.texts, on_rows.predictions.outcomes, all_tasks)
        )
        golden = {name: await _judge_golden(predictor, task) for name, task in tasks.items()}
        in_own_rows = SENTIMENT in tasks and not quick
        languages = await _score_languages(predictor) if in_own_rows else {}
        in_languages = await _predict_languages(predictor, rows, tasks)
        speed = await _time(predictor, on_rows, list(tasks))
    finally:
        await engine.close()
    measures = measures_of(rows, on_rows.outcomes, tasks)
    for own, more in in_languages.values():
        measures |= of_all_languages(more, own)
    for task in FLIPPED_TASKS:
        if task in tasks and attacked is not None:
            measures[f"{task}.flip_rate"] = flips_of(attacked, task)
    others = [await _start_and_predict(other, rows, step) for other in against]
    return Report(
        package=on_rows.package,
        tasks={
            name: TaskMade(version=task.version, digest=task.digest) for name, task in tasks.items()
        },
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        data={
            file: DataFile(digest=digest, rows=rows.count(file))
            for file, digest in rows.digests.items()
        },
        scores={name: score_of(measure) for name, measure in measures.items()},
        baselines=baselines_of(rows, tasks),
        labels={
            name: _labels(task, rows_of(name, rows), on_rows.outcomes[name])
            for name, task in tasks.items()
        },
        confusion=confusion_of(rows.reviews, on_rows.outcomes[SENTIMENT], tasks[SENTIMENT])
        if SENTIMENT in tasks
        else None,
        calibration={
            name: bins_of(stated_of(name, rows_of(name, rows), on_rows.outcomes[name]))
            for name in tasks
        },
        slices=_slices(rows, on_rows.outcomes, tasks) | languages | _by_language(in_languages),
        hostile={} if attacked is None else families_of(attacked),
        golden=golden,
        speed=speed,
        against=[_against(other, rows, tasks, on_rows.outcomes) for other in others],
        distributions=distributions_of(on_rows.texts, on_rows.predictions.outcomes),
        seconds=round(time.monotonic() - started, 1),
    )


def _texts_of(rows: DevRows) -> list[str]:
    """The reviews; the entity rows' texts where no task is scored on reviews."""
    return [row["text"] for row in rows.reviews or rows.entities]


async def _predict_rows(engine: Engine, predictor: Predictor, rows: DevRows) -> RowPredictions:
    tasks = list(engine.tasks)
    texts = _texts_of(rows)
    predictions = await predictor.predict("reviews", tasks, texts)
    outcomes = dict(predictions.outcomes)
    if NER in tasks and rows.reviews:
        named = await predictor.predict(
            "entity rows", [NER], [row["text"] for row in rows.entities]
        )
        outcomes |= named.outcomes
    labels = {name: about.labels for name, about in engine.tasks.items()}
    return RowPredictions(name_of(engine), texts, predictions, outcomes, labels)


async def _judge_golden(predictor: Predictor, task: Task) -> Golden:
    predictions = await predictor.predict(
        f"golden rows of {task.name}", [task.name], golden_texts(task)
    )
    return judge_golden(task, predictions.outcomes[task.name])


async def _score_languages(predictor: Predictor) -> dict[str, dict[str, dict[str, Score]]]:
    rows = language_rows()
    predictions = await predictor.predict(
        "other languages", [SENTIMENT], [row["text"] for row in rows]
    )
    right = share(
        hits([row["sentiment"] for row in rows], predicted_labels(predictions.outcomes[SENTIMENT]))
    )
    languages = slices_of(rows)["language"]
    return {
        "language, own short reviews": {
            name: {"sentiment.accuracy": score_of(right.of_rows(chosen))}
            for name, chosen in languages.items()
        }
    }


async def _predict_languages(
    predictor: Predictor, rows: DevRows, tasks: Mapping[str, Task]
) -> dict[str, tuple[Sequence[Row], dict[str, Measure]]]:
    """By what the rows are, the rows and their measures; without rows, nothing."""
    found: dict[str, tuple[Sequence[Row], dict[str, Measure]]] = {}
    reviewed = [name for name in (SENTIMENT, TOPIC) if name in tasks]
    if rows.translated and reviewed:
        texts = [row["text"] for row in rows.translated]
        predictions = await predictor.predict("translated reviews", reviewed, texts)
        measures = translated_measures(rows.translated, predictions.outcomes, tasks)
        found["translated reviews"] = rows.translated, measures
    if rows.entities_by_language:
        texts = [row["text"] for row in rows.entities_by_language]
        predictions = await predictor.predict("entities by language", [NER], texts)
        measures = entity_measures(rows.entities_by_language, predictions.outcomes, tasks)
        found["entity rows"] = rows.entities_by_language, measures
    return found


def _by_language(
    found: Mapping[str, tuple[Sequence[Row], Mapping[str, Measure]]],
) -> dict[str, dict[str, dict[str, Score]]]:
    return {
        f"language, {kind}": {
            language: {name: score_of(measure.of_rows(chosen)) for name, measure in own.items()}
            for language, chosen in slices_of(rows)["language"].items()
        }
        for kind, (rows, own) in found.items()
    }


async def _time(predictor: Predictor, on_rows: RowPredictions, tasks: Sequence[str]) -> Speed:
    count = min(len(on_rows.texts), _LATENCY_TEXTS)
    # A leading space misses the engine's answer cache and does not change what the text says.
    texts = [f" {on_rows.texts[at * len(on_rows.texts) // count]}" for at in range(count)]
    took = np.array(await predictor.time("one by one", tasks, texts)) * 1000
    return Speed(
        reviews_per_s=score_of(_speed(on_rows.predictions)),
        in_flight=IN_FLIGHT,
        latency_p50_ms=percentile_of(took, 50),
        latency_p95_ms=percentile_of(took, 95),
    )


def _speed(predictions: Predictions) -> Measure:
    """Answers by seconds, a row per so many answers in the order in which they came."""
    ends = [*range(_ANSWERS_A_SAMPLE, len(predictions.finished_s), _ANSWERS_A_SAMPLE)]
    ends.append(len(predictions.finished_s))
    at = predictions.finished_s[np.array(ends) - 1]
    parts = np.column_stack([np.diff(ends, prepend=0), np.diff(at, prepend=0.0)])
    return Measure(parts.astype(float), lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1e-9))


def _labels(
    task: Task, rows: Sequence[Row], predicted: Sequence[Outcome]
) -> dict[str, LabelScores]:
    parts = label_parts_of(task, rows, predicted)
    return {
        label: LabelScores(
            f1=score_of(micro_f1(parts[:, [at]])),
            precision=counts.precision,
            recall=counts.recall,
            gold=counts.right + counts.missed,
            said=counts.right + counts.wrong,
        )
        for at, (label, counts) in enumerate(zip(task.label_ids, counts_of(parts), strict=True))
    }


def _slices(
    rows: DevRows, outcomes: Outcomes, tasks: Mapping[str, Task]
) -> dict[str, dict[str, dict[str, Score]]]:
    """The first score of each task on the rows of each slice.

    No means over labels: a slice lacks some of them.
    """
    found: dict[str, dict[str, dict[str, Score]]] = {}
    for name, task in tasks.items():
        measures = measures_of(rows, {name: outcomes[name]}, {name: task})
        first = next(iter(measures))
        for kind, slices in slices_of(rows_of(name, rows)).items():
            for place, chosen in slices.items():
                score = score_of(measures[first].of_rows(chosen))
                found.setdefault(kind, {}).setdefault(place, {})[first] = score
    return found


def _against(
    other: RowPredictions, rows: DevRows, tasks: Mapping[str, Task], outcomes: Outcomes
) -> Against:
    ours: dict[str, Measure] = {}
    theirs: dict[str, Measure] = {}
    left_out: dict[str, list[str]] = {}
    for name, task in tasks.items():
        if name not in other.outcomes:
            continue
        known = set(other.labels[name])
        if alone := known ^ set(task.label_ids):
            left_out[name] = sorted(alone)
        if shared := known & set(task.label_ids):
            ours |= measures_on(shared, task, rows, outcomes[name])
            theirs |= measures_on(shared, task, rows, other.outcomes[name])
    return Against(
        package=other.package,
        scores={name: score_of(measure) for name, measure in theirs.items()},
        differences={name: difference_of(ours[name], measure) for name, measure in theirs.items()},
        left_out=left_out,
    )
