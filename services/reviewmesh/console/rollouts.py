"""The screen of rollouts: where each task's candidate is, the evidence, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import structlog
from starlette.routing import Route

from reviewmesh.console.acting import OfferedAction
from reviewmesh.console.kept import KeptReading
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.moving import MovingScreen, Templates
from reviewmesh.console.people import Role
from reviewmesh.enrich.rollouts import CANARY, READY, SHADOW
from reviewmesh.judge.answers import ALL
from reviewmesh.judge.bounds import Bounds, BoundsProblem
from reviewmesh.judge.rollout import ABORT, ADVANCE, Look, RolloutRecord
from reviewmesh.query.rollouts import (
    ENDS_IT,
    again_command,
    epochs_of_rollouts,
    limits_of,
    promote_command,
)
from reviewmesh_schemas.names import TASKS

LOOKS_SHOWN = 12
HOUR_MS = 3_600_000

Epochs = Mapping[str, Sequence[RolloutRecord]]

NEEDS = {ADVANCE: Role.OWNER, ABORT: Role.OPERATOR}
"""By command of the page. To advance lets more reviews be answered before the judge is sure."""


@dataclass(frozen=True, slots=True)
class DrawnLook:
    """A confidence interval; its places are percents of the width of all of them."""

    look: Look
    left: float
    width: float
    mean: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one metric."""

    metric: str
    ends_it: str
    limit: float
    limit_at: float
    """Percent of the width."""
    looks: tuple[DrawnLook, ...]
    """Of all reviews, in order."""
    slices: tuple[Look, ...]
    """The last of each language."""

    @property
    def told(self) -> str:
        last = self.looks[-1].look
        if last.low > self.limit:
            return f"shown to be above {self.limit:g}"
        if last.high < self.limit:
            return f"shown to be below {self.limit:g}"
        return f"may still be above {self.limit:g}, or below"


@dataclass(frozen=True, slots=True)
class RolloutStage:
    """A stage of a rollout: the shadow, a step of the canary, or that it is ready."""

    words: str
    standing: str
    """`done`, `now` or `to come`."""


@dataclass(frozen=True, slots=True)
class RolloutShown:
    """The rollout of a task."""

    record: RolloutRecord
    stages: tuple[RolloutStage, ...]
    evidence: tuple[Evidence, ...]
    following: tuple[str, ...]
    """What would happen next, in sentences."""
    commands: tuple[tuple[str, str], ...]
    """What a command is for, and the command."""
    offers: tuple[OfferedAction, ...]
    epochs: tuple[RolloutRecord, ...]
    """As far as the topic still has them, newest first."""
    ends_at_ms: int | None
    """When the judge ends it, if it is not ready until then."""
    problem: str
    """Why its bounds cannot be read."""


def kept_rollouts(mesh: Mesh, log: structlog.stdlib.BoundLogger) -> KeptReading[Epochs]:
    return KeptReading(lambda: epochs_of_rollouts(mesh.connection()), log)


def routes_of(kept: KeptReading[Epochs], templates: Templates) -> list[Route]:
    return MovingScreen("rollouts", templates, lambda query: shown(kept, query)).routes()


def shown(kept: KeptReading[Epochs], query: Mapping[str, str]) -> dict[str, Any]:
    reading = kept.reading()
    epochs = reading.value or {}
    wanted = query.get("task", "")
    return {
        "reading": reading,
        "task": wanted,
        "known_task": not wanted or wanted in TASKS,
        "rollouts": [
            rollout_shown(epochs[task])
            for task in TASKS
            if wanted in ("", task) and epochs.get(task)
        ],
        "without": [task for task in TASKS if wanted in ("", task) and not epochs.get(task)],
    }


def rollout_shown(epochs: Sequence[RolloutRecord]) -> RolloutShown:
    """`epochs`: of one task, oldest first, at least one."""
    record = epochs[-1]
    try:
        bounds, problem = record.parsed_bounds(), ""
    except BoundsProblem as error:
        bounds, problem = Bounds(), str(error)
    return RolloutShown(
        record=record,
        stages=() if problem else _stages(record, bounds),
        evidence=() if problem else _evidence(record, bounds),
        following=() if problem else tuple(_following(record, bounds)),
        commands=tuple(_commands(record)),
        offers=tuple(_offers(record)),
        epochs=tuple(reversed(epochs)),
        ends_at_ms=None if problem else _ends_at_ms(record, bounds),
        problem=problem,
    )


def _stages(record: RolloutRecord, bounds: Bounds) -> tuple[RolloutStage, ...]:
    """Where a rollout is that goes on; of one that ended it is only known how it ended."""
    if not record.is_running:
        return ()
    names = ["shadow", *(f"canary at {100 * share:.4g} %" for share in bounds.steps), "ready"]
    at = {SHADOW: 0, CANARY: 1 + record.step, READY: len(names) - 1}[record.state]
    return tuple(
        RolloutStage(words, "done" if number < at else "now" if number == at else "to come")
        for number, words in enumerate(names)
    )


def _following(record: RolloutRecord, bounds: Bounds) -> list[str]:
    if not record.is_running:
        return [
            "Nothing goes on: the task's own workers answer every review, and the candidate none."
        ]
    said = []
    if record.verdict:
        said.append(f"It waits: {record.verdict}.")
    if record.state == READY:
        said.append("Promote the candidate, then end the rollout. Nothing happens by itself.")
    else:
        said.append(f"Then {following_stage(record, bounds)}.")
    said.append(
        "The judge ends it at once, and the task's own workers answer again, if the evidence "
        "below shows that a metric is above its limit."
    )
    return said


def following_stage(record: RolloutRecord, bounds: Bounds) -> str:
    """What comes after the shadow, or after a step of the canary."""
    number = 0 if record.state == SHADOW else record.step + 1
    if number < len(bounds.steps):
        return f"the candidate answers {100 * bounds.steps[number]:.4g} % of the reviews"
    return "it is ready: it may be promoted"


def _offers(record: RolloutRecord) -> list[OfferedAction]:
    if not record.is_running:
        return []
    words = {
        ADVANCE: "End" if record.state == READY else "Advance",
        ABORT: "Abort",
    }
    # The epoch that this page shows: a command for an older one is refused.
    query = urlencode({"task": record.task, "epoch": record.epoch})
    return [
        OfferedAction(
            f"{words[action]} the rollout of {record.task}", f"/rollouts/{action}?{query}", needs
        )
        for action, needs in NEEDS.items()
    ]


def _commands(record: RolloutRecord) -> list[tuple[str, str]]:
    task, epoch = record.task, record.epoch
    if not record.is_running:
        found = [("begin another", f"reviewmesh rollout start --task {task}")]
    elif record.state == READY:
        found = [
            ("promote the candidate", promote_command(record)),
            ("then end the rollout", f"reviewmesh rollout advance --task {task} --epoch {epoch}"),
        ]
    else:
        found = [
            (
                "go on without waiting",
                f"reviewmesh rollout advance --task {task} --epoch {epoch}",
            )
        ]
    if record.is_running:
        found.append(("end it", f"reviewmesh rollout abort --task {task} --epoch {epoch}"))
    if record.canaries or record.state in (CANARY, READY):
        found.append(("do the candidate's answers again", again_command(record)))
    return found


def _evidence(record: RolloutRecord, bounds: Bounds) -> tuple[Evidence, ...]:
    found = []
    for metric, limit in limits_of(record, bounds).items():
        looks = record.looks_at(metric, ALL)[-LOOKS_SHOWN:]
        if not looks:
            continue
        low = min(limit, *(look.low for look in looks))
        span = (max(limit, *(look.high for look in looks)) - low) or 1.0
        found.append(
            Evidence(
                metric=metric,
                ends_it=ENDS_IT[metric],
                limit=limit,
                limit_at=100 * (limit - low) / span,
                looks=tuple(
                    DrawnLook(
                        look,
                        left=100 * (look.low - low) / span,
                        width=100 * (look.high - look.low) / span,
                        mean=100 * (look.mean - low) / span,
                    )
                    for look in looks
                ),
                slices=tuple(
                    own[-1] for name in record.slices if (own := record.looks_at(metric, name))
                ),
            )
        )
    return tuple(found)


def _ends_at_ms(record: RolloutRecord, bounds: Bounds) -> int | None:
    if record.started_at is None or record.state not in (SHADOW, CANARY):
        return None
    return record.started_at + int(bounds.hours * HOUR_MS)
