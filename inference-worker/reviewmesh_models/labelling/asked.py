"""Asks all teachers concurrently, each for one task after the other; a failure stops only that
teacher."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from reviewmesh_models.evaluation.predictions import Predictor, Step
from reviewmesh_models.labelling.answers import TeacherFailure, labels_of
from reviewmesh_models.labelling.batches import BatchTeacher
from reviewmesh_models.labelling.live import (
    BudgetSpent,
    LiveTeacher,
    TeacherFailed,
    client_of,
)
from reviewmesh_models.labelling.local import LocalTeacher
from reviewmesh_models.labelling.reviews import Review
from reviewmesh_models.labelling.store import Asked, Store
from reviewmesh_models.labelling.teachers import Budget, Teacher, Teachers
from reviewmesh_worker.engines.interface import EngineDead, EngineLoadError, ItemFailure
from reviewmesh_worker.tasks.definition import Task

_AT_ONCE = 256
"""Texts of a package between two writes."""


async def ask_all(
    teachers: Teachers,
    packages: Mapping[str, LocalTeacher],
    tasks: Sequence[Task],
    store: Store,
    step: Step,
) -> list[str]:
    """Ask until every review is answered by every teacher; returns why some are not."""
    reviews = store.reviews()
    settled = asyncio.Event()
    asking = [
        _ask_package(teacher.name, packages[teacher.name], tasks, reviews, store, step)
        if teacher.package is not None
        else _ask_endpoint(teacher, tasks, reviews, store, teachers.budget, settled, step)
        for teacher in teachers.teachers
    ]
    return [why for why in await asyncio.gather(*asking) if why]


async def _ask_endpoint(
    teacher: Teacher,
    tasks: Sequence[Task],
    reviews: list[Review],
    store: Store,
    budget: Budget | None,
    settled: asyncio.Event,
    step: Step,
) -> str:
    may_leave = [review for review in reviews if teacher.may_get(review.leaves_for)]
    stay, reviews = len(reviews) - len(may_leave), may_leave
    async with client_of(teacher) as client:
        batches = BatchTeacher(teacher, client, store, budget)
        live = LiveTeacher(teacher, client, store, budget, settled=settled)
        try:
            for task in tasks:
                answered = step(f"{teacher.name}: {task.name}", len(reviews))
                if teacher.batch:
                    await batches.label(task, reviews, answered)
                else:
                    # From an earlier run with the same settings: paid answers are not requested
                    # again.
                    await batches.finish(task, reviews, lambda _: None)
                    await live.label(task, reviews, answered)
        except (TeacherFailed, BudgetSpent) as error:
            return str(error)
    return _stayed(teacher, stay) if stay else ""


def _stayed(teacher: Teacher, count: int) -> str:
    where = f"its region {teacher.region}" if teacher.region else "it, which names no region"
    return (
        f"teacher {teacher.name}: {count:,} reviews of a mesh may not leave for {where}, and were "
        "not sent; `reviewmesh tail --leaving REGION` prints those that may, masked"
    )


async def _ask_package(
    name: str,
    local: LocalTeacher,
    tasks: Sequence[Task],
    reviews: list[Review],
    store: Store,
    step: Step,
) -> str:
    try:
        await local.engine.start()
    except EngineLoadError as error:
        return f"teacher {name}: {error}"
    try:
        for task in tasks:
            if task.name not in local.engine.tasks:
                return f"teacher {name}: its package does not serve the task {task.name}"
            await _predict(name, local, task, reviews, store, step)
    except EngineDead as error:
        return f"teacher {name}: its engine died, {error}"
    finally:
        await local.engine.close()
    return ""


async def _predict(
    name: str, local: LocalTeacher, task: Task, reviews: list[Review], store: Store, step: Step
) -> None:
    asked = Asked(local.identity, task.name, task.digest)
    there = store.answers(asked)
    missing = [review for review in reviews if review.key not in there]
    answered = step(f"{name}: {task.name}", len(reviews))
    answered(len(reviews) - len(missing))
    predictor = Predictor(local.engine, lambda what, texts: answered)
    for at in range(0, len(missing), _AT_ONCE):
        some = missing[at : at + _AT_ONCE]
        texts = [review.text for review in some]
        predictions = await predictor.predict(task.name, [task.name], texts)
        outcomes = predictions.outcomes[task.name]
        store.keep(
            asked,
            (
                (
                    review.key,
                    TeacherFailure(outcome.code, outcome.message)
                    if isinstance(outcome, ItemFailure)
                    else labels_of(outcome),
                )
                for review, outcome in zip(some, outcomes, strict=True)
            ),
        )
