"""The record of a task's rollout, and its changes by commands and decisions. Pure."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from reviewmesh.enrich.rollouts import (
    ABORTED,
    CANARY,
    DONE,
    NONE,
    READY,
    ROLLED_BACK,
    RUNNING_STATES,
    SHADOW,
)
from reviewmesh.judge.bounds import Bounds, BoundsProblem, parse_bounds
from reviewmesh.judge.comparison import Verdict

START, ADVANCE, ABORT = "start", "advance", "abort"
MAX_LOOKS_PER_METRIC = 40


class CommandRefused(ValueError):
    """The command is refused; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Look:
    """The confidence interval of a metric on a slice at one time."""

    at: int
    state: str
    metric: str
    slice: str
    observations: int
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, verdict: Verdict, state: str, at: int) -> Look:
        return cls(
            at,
            state,
            verdict.metric,
            verdict.slice_name,
            verdict.observations,
            verdict.mean,
            verdict.interval.low,
            verdict.interval.high,
        )


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """The record of a task in `reviews.control`. Times are in milliseconds since 1970."""

    task: str
    rollout: str = ""
    epoch: int = 0
    state: str = NONE
    share: float = 0.0
    step: int = 0
    reason: str | None = None
    verdict: str | None = None
    bounds: str | None = None
    model: str | None = None
    started_at: int | None = None
    stage_at: int | None = None
    changed_at: int | None = None
    since: Mapping[str, int] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
    answered: int = 0
    compared: int = 0
    canaries: int = 0
    canaries_before: int = 0
    unpriced: int = 0
    looks: tuple[Look, ...] = ()
    start_command: int | None = None
    commands_read: int = 0
    last_command: str | None = None
    refusal: str | None = None

    @property
    def is_running(self) -> bool:
        return self.state in RUNNING_STATES

    def parsed_bounds(self) -> Bounds:
        """Raises BoundsProblem."""
        return parse_bounds(self.bounds or "{}")

    def looks_at(self, metric: str, slice_name: str) -> list[Look]:
        """In order."""
        return [look for look in self.looks if (look.metric, look.slice) == (metric, slice_name)]

    def content(self) -> dict[str, Any]:
        return asdict(self)


def record_of(content: Mapping[str, Any]) -> RolloutRecord:
    fields = dict(content)
    fields["slices"] = tuple(content["slices"])
    fields["looks"] = tuple(Look(**look) for look in content["looks"])
    return RolloutRecord(**fields)


@dataclass(frozen=True, slots=True)
class Command:
    id: str
    task: str
    action: str
    epoch: int
    bounds: str | None
    offset: int


def command_of(content: Mapping[str, Any], offset: int) -> Command:
    return Command(
        content["command"],
        content["task"],
        content["action"],
        content["epoch"],
        content["bounds"],
        offset,
    )


def apply_command(
    record: RolloutRecord, command: Command, has_candidate: bool, now_ms: int
) -> RolloutRecord:
    """The record after a command. A refused command changes only its reason, in `refusal`."""
    try:
        changed = _execute(record, command, has_candidate, now_ms)
        refusal = None
    except CommandRefused as error:
        changed, refusal = record, str(error)
    return replace(
        changed,
        commands_read=command.offset + 1,
        last_command=command.id,
        refusal=refusal,
        changed_at=now_ms,
    )


def _execute(
    record: RolloutRecord, command: Command, has_candidate: bool, now_ms: int
) -> RolloutRecord:
    """Raises CommandRefused."""
    if command.epoch != record.epoch:
        raise CommandRefused(
            f"the rollout of {record.task} is at epoch {record.epoch} "
            f"({record.state.lower()}), and the command was given for epoch {command.epoch}: "
            f"it changed meanwhile; see `reviewmesh rollout status` and decide again"
        )
    if command.action == START:
        return _started(record, command, has_candidate, now_ms)
    if not record.is_running:
        raise CommandRefused(f"no rollout of {record.task} goes on; it is {record.state.lower()}")
    if command.action == ABORT:
        return _ended(record, ABORTED, "aborted by a command", now_ms)
    if command.action == ADVANCE:
        if record.state == READY:
            return _ended(record, DONE, "ended by a command", now_ms)
        try:
            return advanced(record, "advanced by a command", now_ms)
        except BoundsProblem as error:
            raise CommandRefused(f"the bounds of {record.rollout}: {error}") from error
    raise CommandRefused(f"expected start, advance or abort, got {command.action!r:.80}")


def _started(
    record: RolloutRecord, command: Command, has_candidate: bool, now_ms: int
) -> RolloutRecord:
    if record.is_running:
        raise CommandRefused(
            f"rollout {record.rollout} goes on; end it with `reviewmesh rollout abort --task "
            f"{record.task}` first"
        )
    if not has_candidate:
        name = f"REVIEWMESH_CANDIDATES__{record.task.upper()}"
        raise CommandRefused(
            f"the judge knows no workers with a candidate of {record.task}: set {name} to their "
            "addresses, for the enricher and for the judge, and start both again"
        )
    try:
        bounds = parse_bounds(command.bounds or "{}")
    except BoundsProblem as error:
        raise CommandRefused(f"the bounds: {error}") from error
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_ms / 1000))
    return RolloutRecord(
        task=record.task,
        rollout=f"{record.task}-{stamp}-{secrets.token_hex(2)}",
        epoch=record.epoch + 1,
        state=SHADOW,
        share=bounds.shadow_share,
        reason="started by a command",
        bounds=command.bounds,
        started_at=now_ms,
        stage_at=now_ms,
        changed_at=now_ms,
        start_command=command.offset,
    )


def advanced(record: RolloutRecord, why: str, now_ms: int) -> RolloutRecord:
    """Advance to the canary, to its next step, or to READY."""
    steps = record.parsed_bounds().steps
    if record.state == SHADOW:
        changes: dict[str, Any] = {
            "state": CANARY,
            "step": 0,
            "share": steps[0],
            "since": {},
            "answered": 0,
        }
    elif record.step + 1 < len(steps):
        changes = {
            "step": record.step + 1,
            "share": steps[record.step + 1],
            "canaries_before": record.canaries,
        }
    else:
        changes = {"state": READY}
    return replace(
        record,
        epoch=record.epoch + 1,
        reason=why,
        verdict=None,
        stage_at=now_ms,
        changed_at=now_ms,
        **changes,
    )


def rolled_back(record: RolloutRecord, why: str, now_ms: int) -> RolloutRecord:
    return _ended(record, ROLLED_BACK, why, now_ms)


def _ended(record: RolloutRecord, state: str, why: str, now_ms: int) -> RolloutRecord:
    return replace(
        record,
        epoch=record.epoch + 1,
        state=state,
        share=0.0,
        reason=why,
        verdict=None,
        stage_at=now_ms,
        changed_at=now_ms,
    )


def with_looks(record: RolloutRecord, looks: list[Look]) -> RolloutRecord:
    """Add looks. Drop every other look of a metric and slice if there are too many."""
    kept = [*record.looks, *looks]
    for metric, name in {(look.metric, look.slice) for look in looks}:
        own = [look for look in kept if (look.metric, look.slice) == (metric, name)]
        if len(own) > MAX_LOOKS_PER_METRIC:
            dropped = {id(look) for look in own[1:-1:2]}
            kept = [look for look in kept if id(look) not in dropped]
    return replace(record, looks=tuple(kept))
