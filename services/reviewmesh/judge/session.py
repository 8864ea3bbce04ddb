"""A session of the judge: carries out commands, and judges the running rollouts.

A session reads the state of all rollouts from `reviews.control` and ends when a write fails. The
next session reads it again, so that no decision is based on a state that may not be written.
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
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.rollouts import CANARY, READY, SHADOW
from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from reviewmesh.judge.answers import ALL
from reviewmesh.judge.bounds import BoundsProblem
from reviewmesh.judge.comparison import METRICS
from reviewmesh.judge.control_topic import ControlTopic
from reviewmesh.judge.decision import BOUNDS, MODEL, TIME, Action, Decision, RolloutStatus, decide
from reviewmesh.judge.rollout import (
    START,
    Command,
    Look,
    RolloutRecord,
    advanced,
    apply_command,
    command_of,
    record_of,
    rolled_back,
    with_looks,
)
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
    """Raises KafkaException, Unavailable and RegistryUnavailable; then a new session is needed."""

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
        # First, because its producer fences every other judge.
        self._control = ControlTopic(
            settings, contracts.codec(CONTROL), contracts.partitions(CONTROL)
        )
        self._records = {task: RolloutRecord(task) for task in TASKS} | self._read_records()
        self._trials: dict[str, Trial] = {}
        self._caught_up: set[str] = set()
        self._last_look: dict[str, float] = {}
        self._labelled: dict[tuple[str, int], Sequence[Mapping[str, Any]]] = {}
        self._command_queue: SimpleQueue[Command] = SimpleQueue()
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
            self._update_metrics(record)

    def close(self) -> None:
        self._commands.stop()
        for trial in self._trials.values():
            trial.close()

    @property
    def waiting_for(self) -> str:
        return "" if self._commands.is_current else "reading reviews.commands to its end"

    def run_once(self) -> None:
        while True:
            try:
                command = self._command_queue.get_nowait()
            except Empty:
                break
            self._carry_out(command)
        for task, record in tuple(self._records.items()):
            if record.is_running:
                self._judge(task, record)

    # -- commands ----------------------------------------------------------------------------

    def _take_command(self, record: Record, content: dict[str, Any] | None) -> None:
        """Queue a command. Called by the thread that reads them."""
        if content is None or content["task"] not in TASKS:
            return
        command = command_of(content, record.offset)
        if command.action == START:
            self._labelled[command.task, command.offset] = content["labelled"]
        self._command_queue.put(command)

    def _carry_out(self, command: Command) -> None:
        record = self._records[command.task]
        if command.offset >= record.commands_read:
            has_candidate = bool(getattr(self._settings.candidates, command.task))
            changed = apply_command(record, command, has_candidate, self._now_ms())
            self._log.info(
                "carried out a command",
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
            # The labelled texts are in the command that started the rollout.
            return
        try:
            bounds = record.parsed_bounds()
        except BoundsProblem as error:
            # A newer version of the judge may have written bounds that this one does not know.
            self._end(record, Decision(Action.ROLL_BACK, f"its bounds: {error}", BOUNDS))
            return
        trial = self._trial(record)
        trial.poll()
        if trial.is_current:
            self._caught_up.add(task)
        decision = decide(self._status(record, trial), bounds, trial.shown)
        if decision.action is Action.ADVANCE and task not in self._caught_up:
            decision = Decision(Action.HOLD, "reading the answers since its start again")
        shown = self._with_counts(record, trial, decision)
        if decision.action is Action.ROLL_BACK:
            self._end(self._with_new_looks(shown, trial), decision)
        elif decision.action is Action.ADVANCE:
            shown = self._with_new_looks(shown, trial)
            self._write(advanced(shown, decision.why, self._now_ms()))
        elif time.monotonic() - self._last_look.get(task, float("-inf")) >= LOOK_EVERY_S:
            self._last_look[task] = time.monotonic()
            self._write(self._with_new_looks(shown, trial))

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
        self._last_look.pop(task, None)
        trial = self._trials.pop(task, None)
        if trial is not None:
            trial.close()

    def _workers(self, task: str) -> dict[str, PoolConfig]:
        own = getattr(self._settings.workers, task).split(",")
        addresses = {
            PRIMARY: (variable("workers", task), tuple(filter(None, map(str.strip, own)))),
            CANDIDATE: (variable("candidates", task), getattr(self._settings.candidates, task)),
        }
        return {
            route: PoolConfig(
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

    def _status(self, record: RolloutRecord, trial: Trial) -> RolloutStatus:
        now = self._now_ms()
        return RolloutStatus(
            record.state,
            record.step,
            record.share,
            hours=(now - (record.started_at or now)) / HOUR_MS,
            step_s=(now - (record.stage_at or now)) / 1000,
            labelled_remaining=trial.labelled_remaining,
            canaries_before=record.canaries_before,
        )

    def _with_counts(
        self, record: RolloutRecord, trial: Trial, decision: Decision
    ) -> RolloutRecord:
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

    def _with_new_looks(self, record: RolloutRecord, trial: Trial) -> RolloutRecord:
        bounds, now = record.parsed_bounds(), self._now_ms()
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

    # -- records -----------------------------------------------------------------------------

    def _read_records(self) -> dict[str, RolloutRecord]:
        codec = self._contracts.codec(CONTROL)
        found: dict[str, RolloutRecord] = {}
        for partition in range(self._contracts.partitions(CONTROL)):
            for record in self._reader.read_from(CONTROL, partition, 0):
                try:
                    content = codec.decode_ours(record.value or b"")
                except DecodeError as error:
                    self._log.warning(
                        "ignoring a record of reviews.control that is no rollout",
                        offset=record.offset,
                        reason=str(error),
                    )
                    continue
                if content["task"] in TASKS:
                    found[content["task"]] = record_of(content)
        return found

    def _write(self, record: RolloutRecord) -> None:
        if record.is_running and not record.since:
            record = replace(record, since=self._end_offsets(record))
        before = self._records[record.task]
        self._control.write(record)
        self._records[record.task] = record
        self._update_metrics(record)
        if record.epoch != before.epoch:
            self._log.info(
                "rollout",
                rollout=record.rollout,
                epoch=record.epoch,
                state=record.state,
                share=record.share,
                why=record.reason,
            )
        if not record.is_running or (before.state == SHADOW) != (record.state == SHADOW):
            self._end_trial(record.task)

    def _end_offsets(self, record: RolloutRecord) -> dict[str, int]:
        return {
            f"{topic}/{partition}": self._reader.bounds(topic, partition)[1]
            for topic in topics_of(record.task, record.state)
            for partition in range(self._contracts.partitions(topic))
        }

    def _update_metrics(self, record: RolloutRecord) -> None:
        for state in (SHADOW, CANARY, READY):
            share = record.share if record.state == state else 0.0
            metrics.ROLLOUT_SHARE.labels(record.task, state).set(share)
        for metric in (*METRICS, TIME, MODEL, BOUNDS):
            metrics.ROLLED_BACK.labels(record.task, metric)

    def _now_ms(self) -> int:
        return milliseconds(wall_clock())
