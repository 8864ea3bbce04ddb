"""The judge at work: carries out commands, looks at what rollouts show, and decides.

A session begins with what is written in `reviews.control` and ends with the first failure of a
write. The next one begins anew, so that nothing is decided on what may not be written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import structlog

from reviewmesh import metrics
from reviewmesh.avro.codec import DecodeError
from reviewmesh.avro.contracts import Contracts
from reviewmesh.avro.followed import followed
from reviewmesh.clock import milliseconds, wall_clock
from reviewmesh.enrich.pool import PoolOf
from reviewmesh.enrich.rollouts import CANARY, READY, SHADOW
from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from reviewmesh.judge.answers import ALL
from reviewmesh.judge.bounds import BoundsProblem
from reviewmesh.judge.comparison import METRICS
from reviewmesh.judge.decision import BOUNDS, MODEL, TIME, Action, Decision, Standing, decide
from reviewmesh.judge.rollout import (
    START,
    Command,
    Look,
    RolloutRecord,
    advanced,
    answered,
    command_of,
    record_of,
    rolled_back,
    with_looks,
)
from reviewmesh.judge.store import ControlTopic
from reviewmesh.judge.trial import Trial, topics_of
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Record
from reviewmesh.settings import Settings
from reviewmesh_kit.certificates import CertificateFiles
from reviewmesh_kit.settings import variable
from reviewmesh_schemas.names import COMMANDS, CONTROL, TASKS

LOOK_EVERY_S = 10.0
HOUR_MS = 3_600_000


class Session:
    """Raises KafkaException and Unavailable."""

    def __init__(
        self,
        settings: Settings,
        contracts: Contracts,
        log: structlog.stdlib.BoundLogger,
        tls: CertificateFiles | None = None,
    ) -> None:
        """`tls`: for the calls to workers."""
        self._settings = settings
        self._tls = tls
        self._contracts = contracts
        self._log = log
        self._reader = PartitionReader(settings)
        # First: from here on no other judge can write.
        self._control = ControlTopic(
            settings, contracts.codec(CONTROL), contracts.partitions(CONTROL)
        )
        self._records = {task: RolloutRecord(task) for task in TASKS} | self._written()
        self._trials: dict[str, Trial] = {}
        self._caught_up: set[str] = set()
        self._looked_at: dict[str, float] = {}
        self._labelled: dict[tuple[str, int], Sequence[Mapping[str, Any]]] = {}
        self._given: SimpleQueue[Command] = SimpleQueue()
        self._commands = followed(
            settings,
            COMMANDS,
            contracts.partitions(COMMANDS),
            contracts.codec(COMMANDS),
            self._take_command,
            log,
        )
        self._commands.start()
        for record in self._records.values():
            self._show(record)

    def close(self) -> None:
        self._commands.stop()
        for trial in self._trials.values():
            trial.close()

    @property
    def waiting_for(self) -> str:
        return "" if self._commands.is_current else "reviews.commands is read"

    def turn(self) -> None:
        while True:
            try:
                command = self._given.get_nowait()
            except Empty:
                break
            self._carry_out(command)
        for task, record in tuple(self._records.items()):
            if record.goes_on:
                self._judge(task, record)

    # -- commands ----------------------------------------------------------------------------

    def _take_command(self, record: Record, content: dict[str, Any] | None) -> None:
        """Called by the thread that reads the commands."""
        if content is None or content["task"] not in TASKS:
            return
        command = command_of(content, record.offset)
        if command.action == START:
            self._labelled[command.task, command.offset] = content["labelled"]
        self._given.put(command)

    def _carry_out(self, command: Command) -> None:
        record = self._records[command.task]
        if command.offset >= record.commands_read:
            has_candidate = bool(getattr(self._settings.candidates, command.task))
            changed = answered(record, command, has_candidate, self._now_ms())
            self._log.info(
                "command",
                command=command.action,
                task=command.task,
                refused=changed.refusal or "",
            )
            self._write(changed)
        if command.offset != self._records[command.task].start_command:
            self._labelled.pop((command.task, command.offset), None)

    # -- judging -----------------------------------------------------------------------------

    def _judge(self, task: str, record: RolloutRecord) -> None:
        if record.start_command is not None and not self._commands.is_current:
            # The labelled texts come with the command that started it.
            return
        try:
            bounds = record.bounds_in_force()
        except BoundsProblem as error:
            # A newer judge may know bounds that this one does not.
            self._end(record, Decision(Action.ROLL_BACK, f"its bounds: {error}", BOUNDS))
            return
        trial = self._trial(record)
        trial.poll()
        if trial.is_current:
            self._caught_up.add(task)
        decision = decide(self._standing(record, trial), bounds, trial.shown)
        if decision.action is Action.ADVANCE and task not in self._caught_up:
            decision = Decision(Action.HOLD, "the answers are being read again")
        shown = self._counted(record, trial, decision)
        if decision.action is Action.ROLL_BACK:
            self._end(self._looked(shown, trial), decision)
        elif decision.action is Action.ADVANCE:
            shown = self._looked(shown, trial)
            self._write(advanced(shown, decision.why, self._now_ms()))
        elif time.monotonic() - self._looked_at.get(task, float("-inf")) >= LOOK_EVERY_S:
            self._looked_at[task] = time.monotonic()
            self._write(self._looked(shown, trial))

    def _end(self, record: RolloutRecord, decision: Decision) -> None:
        self._log.warning("rolled back", rollout=record.rollout, why=decision.why)
        self._write(rolled_back(record, decision.why, self._now_ms()))
        metrics.ROLLED_BACK.labels(record.task, decision.metric).inc()

    def _trial(self, record: RolloutRecord) -> Trial:
        trial = self._trials.get(record.task)
        kind = CANARY if record.state == READY else record.state
        if trial is not None and (trial.rollout, trial.state) == (record.rollout, kind):
            return trial
        self._end_trial(record.task)
        started = record.start_command
        rows = () if started is None else self._labelled.get((record.task, started), ())
        trial = self._trials[record.task] = Trial(
            replace(record, state=kind),
            self._settings,
            self._contracts.codec,
            rows,
            self._workers(record.task),
            self._log,
        )
        return trial

    def _end_trial(self, task: str) -> None:
        self._caught_up.discard(task)
        self._looked_at.pop(task, None)
        trial = self._trials.pop(task, None)
        if trial is not None:
            trial.close()

    def _workers(self, task: str) -> dict[str, PoolOf]:
        own = getattr(self._settings.workers, task).split(",")
        addresses = {
            PRIMARY: (variable("workers", task), tuple(filter(None, map(str.strip, own)))),
            CANDIDATE: (variable("candidates", task), getattr(self._settings.candidates, task)),
        }
        return {
            route: PoolOf(
                task,
                of_route,
                setting,
                metrics.JUDGE_WORKERS_SERVING.labels(task, route),
                metrics.CALLS.labels(task, route),
                "labelled texts wait",
                self._tls,
            )
            for route, (setting, of_route) in addresses.items()
        }

    def _standing(self, record: RolloutRecord, trial: Trial) -> Standing:
        now = self._now_ms()
        return Standing(
            record.state,
            record.step,
            record.share,
            hours=(now - (record.started_at or now)) / HOUR_MS,
            step_s=(now - (record.stage_at or now)) / 1000,
            labelled_left=trial.labelled_left,
            canaries_before=record.canaries_before,
        )

    def _counted(self, record: RolloutRecord, trial: Trial, decision: Decision) -> RolloutRecord:
        shown = trial.shown
        copies = shown.compared if trial.state == SHADOW else record.compared
        return replace(
            record,
            answered=shown.answered,
            compared=copies,
            canaries=shown.canaries,
            unpriced=shown.unpriced,
            slices=tuple(shown.slices),
            model=shown.model,
            verdict=decision.why,
            changed_at=self._now_ms(),
        )

    def _looked(self, record: RolloutRecord, trial: Trial) -> RolloutRecord:
        bounds, now = record.bounds_in_force(), self._now_ms()
        looks = []
        for metric in METRICS:
            for name in (ALL, *trial.shown.slices):
                verdict = trial.shown.verdict(metric, name, bounds.alpha)
                last = next(
                    (k for k in reversed(record.looks) if (k.metric, k.slice) == (metric, name)),
                    None,
                )
                if verdict is not None and (
                    last is None or last.observations != verdict.observations
                ):
                    looks.append(Look.of(verdict, record.state, now))
        for name, agreement in trial.shown.agreement.items():
            for label, kappa in agreement.kappas().items():
                metrics.ROLLOUT_KAPPA.labels(record.task, name, label).set(kappa)
        if trial.state == SHADOW:
            ratio = trial.shown.compared / max(1, trial.shown.answered)
            metrics.ROLLOUT_COMPARED.labels(record.task).set(ratio)
        return with_looks(record, looks)

    # -- what is written ---------------------------------------------------------------------

    def _written(self) -> dict[str, RolloutRecord]:
        codec = self._contracts.codec(CONTROL)
        found: dict[str, RolloutRecord] = {}
        for partition in range(self._contracts.partitions(CONTROL)):
            for record in self._reader.read_from(CONTROL, partition, 0):
                try:
                    content = codec.decode_ours(record.value or b"")
                except DecodeError as error:
                    self._log.warning("not a rollout", offset=record.offset, reason=str(error))
                    continue
                if content["task"] in TASKS:
                    found[content["task"]] = record_of(content)
        return found

    def _write(self, record: RolloutRecord) -> None:
        if record.goes_on and not record.since:
            record = replace(record, since=self._ends(record))
        before = self._records[record.task]
        self._control.write(record)
        self._records[record.task] = record
        self._show(record)
        if record.epoch != before.epoch:
            self._log.info(
                "rollout",
                rollout=record.rollout,
                epoch=record.epoch,
                state=record.state,
                share=record.share,
                why=record.reason,
            )
        if not record.goes_on or (before.state == SHADOW) != (record.state == SHADOW):
            self._end_trial(record.task)

    def _ends(self, record: RolloutRecord) -> dict[str, int]:
        return {
            f"{topic}/{partition}": self._reader.bounds(topic, partition)[1]
            for topic in topics_of(record.task, record.state)
            for partition in range(self._contracts.partitions(topic))
        }

    def _show(self, record: RolloutRecord) -> None:
        for state in (SHADOW, CANARY, READY):
            share = record.share if record.state == state else 0.0
            metrics.ROLLOUT_SHARE.labels(record.task, state).set(share)
        for metric in (*METRICS, TIME, MODEL, BOUNDS):
            metrics.ROLLED_BACK.labels(record.task, metric)

    def _now_ms(self) -> int:
        return milliseconds(wall_clock())
