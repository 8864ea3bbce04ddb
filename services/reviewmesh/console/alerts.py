"""Which of Prometheus' alerts would fire, from what the console sees itself.

Some alerts need a memory that only Prometheus has; NEED_PROMETHEUS names them. A test compares the
rest with observability/rules/alerts.yml.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from reviewmesh.console.processes import ProcessState, Sample
from reviewmesh.console.watch import Picture, Watch
from reviewmesh_schemas.names import TRACER_GROUP

WAIT_S = 5.0
SHOWN_AT_MOST = 50

NEED_PROMETHEUS = (
    "NoAnswers",
    "ServiceMissing",
    "LatencyHigh",
    "ErrorBudgetBurns",
    "ErrorBudgetBurnsSlowly",
    "PartialsGrowing",
    "ProducersRecovering",
    "ModelNotTaken",
    "RestartingAgainAndAgain",
    "RolloutNotJudged",
    "AnswersDrifted",
    "CertificateNotRenewed",
)

Labels = tuple[str, ...]
Measured = Mapping[Labels, float]
"""A value for each group, task or service that an alert may be about."""


class Counters:
    """How much counters have risen, as far as the console has watched them."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._last: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        self._rises: dict[str, deque[tuple[float, Mapping[str, str], float]]] = defaultdict(deque)

    def look(self, processes: tuple[ProcessState, ...], now: float) -> None:
        for state in processes:
            for sample in state.samples if state.answers else ():
                if sample.name.endswith("_total"):
                    self._note(state.name, sample, now)
        for rises in self._rises.values():
            while rises and now - rises[0][0] > self._longest_s:
                rises.popleft()

    def _note(self, process: str, sample: Sample, now: float) -> None:
        key = (process, sample.name, tuple(sorted(sample.labels.items())))
        before = self._last.get(key)
        self._last[key] = sample.value
        if before is None:
            return
        # One that fell began again with its process.
        rise = sample.value - before if sample.value >= before else sample.value
        if rise > 0:
            self._rises[sample.name].append((now, sample.labels, rise))

    def increase(self, name: str, by: Labels, within_s: float, now: float) -> Measured:
        found: dict[Labels, float] = defaultdict(float)
        for at, labels, rise in self._rises[name]:
            if now - at <= within_s:
                found[tuple(labels.get(label, "") for label in by)] += rise
        return found


@dataclass(frozen=True, slots=True)
class SeenMesh:
    """What rules look at."""

    picture: Picture
    counters: Counters
    now: float

    def samples(self, name: str) -> Iterator[Sample]:
        """Of processes that answer: others have none for Prometheus either."""
        for state in self.picture.processes:
            if state.answers:
                yield from state.found(name)


Measure = Callable[[SeenMesh], Measured]


@dataclass(frozen=True, slots=True)
class AlertRule:
    name: str
    above: float
    """It is one where the value is above."""
    for_s: float
    """It fires once it was one for so long."""
    severity: str
    metric: str
    """Of Prometheus' expression."""
    told: str
    """With {0}, {1} for the parts of the subject and {value}."""
    measure: Measure
    within: str = ""
    """Of an increase, as Prometheus writes it."""


def _most(name: str, *by: str) -> Measure:
    def measure(seen: SeenMesh) -> Measured:
        found: dict[Labels, float] = {}
        for sample in seen.samples(name):
            key = tuple(sample.labels.get(label, "") for label in by)
            found[key] = max(sample.value, found.get(key, sample.value))
        return found

    return measure


def _sum(name: str, *by: str) -> Measure:
    def measure(seen: SeenMesh) -> Measured:
        found: dict[Labels, float] = defaultdict(float)
        for sample in seen.samples(name):
            found[tuple(sample.labels.get(label, "") for label in by)] += sample.value
        return found

    return measure


def _increase(name: str, within_s: float, *by: str) -> Measure:
    return lambda seen: seen.counters.increase(name, by, within_s, seen.now)


def _is_tracer(group: str) -> bool:
    """Its lag keeps no review waiting: it has an alert of its own."""
    return group.endswith(TRACER_GROUP)


def _lag_seconds(of_tracers: bool) -> Measure:
    def measure(seen: SeenMesh) -> Measured:
        found: dict[Labels, float] = {}
        for row in seen.picture.partitions:
            if _is_tracer(row.group) is of_tracers:
                found[row.group,] = max(row.seconds(seen.now), found.get((row.group,), 0.0))
        return found

    return measure


def _stuck_partitions(seen: SeenMesh) -> Measured:
    found: dict[Labels, float] = defaultdict(float)
    for row in seen.picture.partitions:
        is_late = row.backlog > 0 and seen.now - row.commit_seen_at > STUCK_AFTER_S
        if is_late and not _is_tracer(row.group):
            found[row.group, row.topic] += 1
    return found


def _drain_seconds(seen: SeenMesh) -> Measured:
    groups = seen.picture.groups
    return {
        (row.group,): row.drain_s for row in groups if row.backlog and not _is_tracer(row.group)
    }


def _tasks_without_workers(seen: SeenMesh) -> Measured:
    most = _most("reviewmesh_workers_serving", "task")(seen)
    return {subject: float(value == 0) for subject, value in most.items()}


def _fallback_calls(seen: SeenMesh) -> Measured:
    found = seen.counters.increase(
        "reviewmesh_inference_calls_total", ("route", "task"), 300, seen.now
    )
    return {(task,): value for (route, task), value in found.items() if route == "fallback"}


def _budget_used(seen: SeenMesh) -> Measured:
    by = ("task", "business", "period", "unit")
    used, limits = (_sum(f"reviewmesh_budget_{name}", *by)(seen) for name in ("used", "limit"))
    return {key: used.get(key, 0.0) / limit for key, limit in limits.items() if limit > 0}


def _silent(seen: SeenMesh) -> Measured:
    return {
        (state.name, state.address): float(not state.answers) for state in seen.picture.processes
    }


STUCK_AFTER_S = 300
PAGE, TICKET = "page", "ticket"
RULES = (
    AlertRule(
        *("LagSecondsHigh", 300, 120, PAGE, "reviewmesh:lag_seconds:max"),
        "{0} is {value:,.0f} s behind",
        _lag_seconds(of_tracers=False),
    ),
    AlertRule(
        *("TracesLate", 300, 120, TICKET, "reviewmesh:lag_seconds:max"),
        "{0} is {value:,.0f} s behind: traces come late, reviews do not",
        _lag_seconds(of_tracers=True),
    ),
    AlertRule(
        *("GroupStuck", 0, 120, PAGE, "reviewmesh_last_commit_age_seconds"),
        "{0} commits nothing on {value:,.0f} partitions of {1} though records wait",
        _stuck_partitions,
    ),
    AlertRule(
        *("DrainTooSlow", 1800, 600, PAGE, "reviewmesh_time_to_drain_seconds"),
        "{0} needs {value:,.0f} s for what waits now",
        _drain_seconds,
    ),
    AlertRule(
        *("LagNotMeasured", 60, 60, PAGE, "reviewmesh_lag_measurement_age_seconds"),
        "the lag service has measured nothing whole for {value:,.0f} s",
        _most("reviewmesh_lag_measurement_age_seconds"),
    ),
    AlertRule(
        *("WorkersMissing", 0, 60, PAGE, "reviewmesh_workers_serving"),
        "no inference worker serves {0}",
        _tasks_without_workers,
    ),
    AlertRule(
        *("OnFallback", 0, 900, TICKET, "reviewmesh_inference_calls_total"),
        "the fallback answers for {0}: its text leaves, and each answer may cost money",
        _fallback_calls,
        "5m",
    ),
    AlertRule(
        *("ReviewsHeldBack", 0, 300, TICKET, "reviewmesh_reviews_held_back"),
        "{value:,.0f} reviews wait for {0}, and the fallback is not taken for them ({1})",
        _sum("reviewmesh_reviews_held_back", "task", "reason"),
    ),
    AlertRule(
        *("BudgetNearlySpent", 0.8, 60, TICKET, "reviewmesh_budget_used"),
        "{value:.0%} of this {2}'s budget of {3} is used: {0} {1}",
        _budget_used,
    ),
    AlertRule(
        *("ServiceDown", 0, 60, PAGE, "up"),
        "{0} at {1} does not answer",
        _silent,
    ),
    AlertRule(
        *("DeadLettersRising", 10, 0, TICKET, "reviewmesh:dead_letters:increase10m"),
        "{value:,.0f} dead letters of {0} within 10 minutes, cause {1}",
        _increase("reviewmesh_dead_letters_total", 600, "stage", "cause"),
    ),
    AlertRule(
        *("StandsStill", 0, 30, PAGE, "reviewmesh_stalled_partitions"),
        "{0} has records on {value:,.0f} partitions and finishes none, for no reason outside",
        _most("reviewmesh_stalled_partitions", "service"),
    ),
    AlertRule(
        *("TransactionsAborted", 20, 0, PAGE, "reviewmesh_transactions_aborted_total"),
        "{0} had {value:,.0f} transactions aborted within 5 minutes: nothing of it comes out",
        _increase("reviewmesh_transactions_aborted_total", 300, "service"),
        "5m",
    ),
    AlertRule(
        *("RecordsSetAside", 0, 0, TICKET, "reviewmesh_records_set_aside_total"),
        "{0} set {value:,.0f} records aside as dead letters ({1})",
        _increase("reviewmesh_records_set_aside_total", 600, "service", "reason"),
        "10m",
    ),
    AlertRule(
        *("OffsetsDeletedUnread", 0, 0, PAGE, "reviewmesh_skipped_offsets_total"),
        "{value:,.0f} offsets of {1} were deleted before {0} read them",
        _increase("reviewmesh_skipped_offsets_total", 600, "service", "topic"),
        "10m",
    ),
    AlertRule(
        *("TransactionLeftOpen", 60, 0, PAGE, "reviewmesh_open_transaction_seconds"),
        "a producer left a transaction open on {0} for {value:,.0f} s: what comes after it is "
        "not read",
        _most("reviewmesh_open_transaction_seconds", "topic"),
    ),
    AlertRule(
        *("RolloutRolledBack", 0, 0, TICKET, "reviewmesh_rollouts_rolled_back_total"),
        "the judge ended the rollout of {0} over its {1}",
        _increase("reviewmesh_rollouts_rolled_back_total", 3_600, "task", "metric"),
        "1h",
    ),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """One that fires, or would after `fires_at`."""

    rule: AlertRule
    told: str
    since: float
    fires_at: float

    @property
    def runbook(self) -> str:
        return f"docs/lag.md#{self.rule.name.lower()}"


class Alerts:
    """A thread looks at each picture."""

    def __init__(self, watch: Watch, log: structlog.stdlib.BoundLogger) -> None:
        self._watch = watch
        self._log = log
        self._counters = Counters(longest_s=3_600)
        self._since: dict[Labels, float] = {}
        self._shown: tuple[Alert, ...] = ()
        self.began_at = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The watch is stopped first, which ends the wait for its next picture."""
        self._stop.set()
        self._thread.join(WAIT_S)

    @property
    def shown(self) -> tuple[Alert, ...]:
        """Pages before tickets, the longest first."""
        return self._shown

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            picture = self._watch.newer_than(number, WAIT_S) or self._watch.picture
            number = picture.number
            try:
                self.look(picture, time.time())
            except Exception:  # noqa: BLE001 - the next picture may be better
                self._log.exception("looking for alerts failed")

    def look(self, picture: Picture, now: float) -> None:
        self._counters.look(picture.processes, now)
        seen = SeenMesh(picture, self._counters, now)
        found: list[Alert] = []
        since: dict[Labels, float] = {}
        for rule in RULES:
            for subject, value in rule.measure(seen).items():
                if value <= rule.above:
                    continue
                key = (rule.name, *subject)
                since[key] = self._since.get(key, now)
                told = rule.told.format(*subject, value=value)
                found.append(Alert(rule, told, since[key], since[key] + rule.for_s))
        self._since = since
        found.sort(key=lambda alert: (alert.rule.severity != PAGE, alert.since))
        self._shown = tuple(found[:SHOWN_AT_MOST])
