"""`reviewmesh capacity`: what one worker does, and how many of them arrivals need."""

from __future__ import annotations

import json
import logging
import math
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated

import structlog
import typer
import yaml

from reviewmesh.capacity.alerts import alert_rules
from reviewmesh.capacity.arrivals import read_arrivals
from reviewmesh.capacity.file import (
    CapacityFile,
    WorkerCapacity,
    chart_values,
    read_capacity,
    write_capacity,
)
from reviewmesh.capacity.load import LoadStep, OpenLoop, Silent
from reviewmesh.capacity.measuring import Measuring
from reviewmesh.capacity.pictures import as_csv, as_svg
from reviewmesh.capacity.policy import MOST_UTILISATION, ScalingPolicy
from reviewmesh.capacity.promql import work_query
from reviewmesh.capacity.replay import Replayed, replay
from reviewmesh.cli.completing import among
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.tables import Column, FittingTable, right
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.clock import milliseconds, plausible_ms, wall_clock
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.connection import worker_certificates
from reviewmesh.leaving.yamlfile import FileProblem
from reviewmesh.query.arrivals import accepted_by_step
from reviewmesh.query.connection import connect
from reviewmesh.query.errors import CannotReach
from reviewmesh.query.values import iso
from reviewmesh.query.where.literals import span_of
from reviewmesh.settings import Settings, WrongSetting
from reviewmesh_kit.printable import plain
from reviewmesh_schemas.names import TASKS

app = typer.Typer(
    help="Measure what a worker does, and try the scaling policy on arrivals.",
    no_args_is_help=True,
)

TASK_HELP = f"The task: {', '.join(TASKS)}."
DEFAULTS = ScalingPolicy(reviews_per_s=1)
SHARES = (0.5, 0.95, 0.99, 1.0)
OBJECTIVE_SHARE = 0.99
MINUTE_S = 60.0
FAILED_TRY = "does not hold"

Backlog = Annotated[
    float, typer.Option(min=0.001, help="Seconds within which a backlog is to be worked off.")
]
Utilisation = Annotated[
    float,
    typer.Option(
        min=0.01, max=MOST_UTILISATION, help="Share of the measured rate that is planned with."
    ),
]
File = Annotated[Path, typer.Option("--capacity", help="What `capacity worker` wrote.")]
Matchers = Annotated[
    str, typer.Option(help="Label matchers for every series, such as 'namespace=\"reviews\"'.")
]
Device = Annotated[str, typer.Option(help="Which entry, if there are several of a task.")]


@app.command()
def worker(
    task: Annotated[str, typer.Option(help=TASK_HELP, autocompletion=among(TASKS))],
    objective_s: Annotated[
        float, typer.Option(min=0.001, help="Seconds within which 95 of 100 reviews are answered.")
    ],
    address: Annotated[
        str, typer.Option(help="The worker, as host:port; by default REVIEWMESH_WORKERS__<TASK>.")
    ] = "",
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Texts to send: one a line, or JSON lines with `text`; samples without it.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="What the worker runs on, such as H200 or '4 cores'.")
    ] = "unnamed",
    start_s: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds from the decision until a worker answers.", show_default=False
        ),
    ] = None,
    dollars_per_hour: Annotated[
        float | None, typer.Option(min=0, help="What one worker costs.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write into.")] = Path("capacity.yaml"),
    from_rate: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Reviews a second to begin with; by default half of one after the other.",
            show_default=False,
        ),
    ] = None,
    step_s: Annotated[float, typer.Option(min=1, help="Seconds of one load.")] = 10.0,
    within_s: Annotated[float, typer.Option(min=10, help="Seconds after which it ends.")] = 300.0,
) -> None:
    """Find the highest rate at which one worker meets the objective, and write it down.

    The load is open: reviews are sent when they are due, answered or not. See docs/capacity.md.
    """
    settings = Settings()
    where = _one_worker(settings, _task(task), address)
    sent = _texts(texts)
    before = _existing(output)
    with _client(settings, task, where) as client:
        loop = OpenLoop(client, sent, objective_s)
        measuring = Measuring(loop, step_s, within_s, _tell)
        try:
            found = measuring.highest(from_rate)
        except Silent as error:
            raise CannotReach(f"{where}: {error}") from error
        except KeyboardInterrupt:
            best = measuring.best
            held = f"{best.rate:.1f} reviews/s held" if best else "no rate held yet"
            err.print(f"interrupted: {held}; nothing was written")
            raise
    if found is None:
        raise CommandFailed(measuring.why_not())
    lineage = loop.lineage
    entry = WorkerCapacity(
        task=task,
        device=device,
        engine=lineage.engine if lineage else "",
        model=lineage.model if lineage else "",
        model_version=lineage.model_version if lineage else "",
        objective_s=objective_s,
        reviews_per_s=round(found.rate, 2),
        p50_s=round(found.p50_s, 4),
        p95_s=round(found.p95_s, 4),
        is_lower_bound=measuring.is_lower_bound,
        start_s=start_s,
        dollars_per_hour=dollars_per_hour,
        measured_at=iso(milliseconds(wall_clock())),
        command=shlex.join(["reviewmesh", *sys.argv[1:]]),
    )
    write_capacity(output, before.replacing(entry))
    if measuring.is_lower_bound:
        err.print(f"a lower bound: {measuring.why_bound()}")
    out.print(
        f"{entry.reviews_per_s:g} reviews/s of {task} on {device}, p50 {entry.p50_s:g} s, "
        f"p95 {entry.p95_s:g} s: written to {output}"
    )


@app.command("query")
def query_(
    task: Annotated[str, typer.Option(help=TASK_HELP, autocompletion=among(TASKS))],
    capacity: File = Path("capacity.yaml"),
    device: Device = "",
    matchers: Matchers = "",
    backlog_s: Backlog = DEFAULTS.backlog_s,
    utilisation: Utilisation = DEFAULTS.target_utilisation,
) -> None:
    """Print the PromQL of the replicas wanted, for one group of workers of one task."""
    [entry] = _entries(capacity, [_task(task)], device)
    policy = ScalingPolicy(entry.reviews_per_s, backlog_s=backlog_s, target_utilisation=utilisation)
    print(work_query(policy, task, matchers, Settings().prefix))


@app.command("alerts")
def alerts_(
    objective_s: Annotated[
        float, typer.Option(min=1, help="Seconds that reviews may wait for a worker.")
    ],
    capacity: File = Path("capacity.yaml"),
    task: Annotated[
        str, typer.Option(help="Only this task; by default every task of the file.")
    ] = "",
    device: Device = "",
    matchers: Matchers = "",
    backlog_s: Backlog = DEFAULTS.backlog_s,
    utilisation: Utilisation = DEFAULTS.target_utilisation,
    max_replicas: Annotated[int, typer.Option(min=1)] = DEFAULTS.max_replicas,
) -> None:
    """Print alerts on the workers as rules for Prometheus, from what one worker does."""
    policies = [
        (
            entry.task,
            ScalingPolicy(
                entry.reviews_per_s,
                backlog_s=backlog_s,
                target_utilisation=utilisation,
                max_replicas=max_replicas,
            ),
        )
        for entry in _entries(capacity, [_task(task)] if task else [], device)
    ]
    rules = alert_rules(policies, objective_s, matchers, Settings().prefix)
    print(yaml.safe_dump(rules, sort_keys=False, width=1000), end="")


@app.command("values")
def values_(
    group: Annotated[str, typer.Option(help="The worker group of the chart's values.")],
    capacity: File = Path("capacity.yaml"),
    task: Annotated[
        str,
        typer.Option(
            help="Only this task; by default every task of the file.", autocompletion=among(TASKS)
        ),
    ] = "",
    device: Device = "",
) -> None:
    """Print the measured figures as values of the chart, for one group of workers."""
    entries = _entries(capacity, [_task(task)] if task else [], device)
    print(yaml.safe_dump(chart_values(group, entries), sort_keys=False), end="")


@app.command("replay")
def replay_(
    arrivals: Annotated[
        Path | None,
        typer.Argument(
            metavar="[ARRIVALS]",
            help="A count of reviews a line, one line a step.",
            show_default=False,
        ),
    ] = None,
    from_topic: Annotated[
        bool, typer.Option("--from-topic", help="Count the accepted reviews of the mesh instead.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="With --from-topic: only from then on: '1d ago'.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="With --from-topic: only until then.", show_default=False)
    ] = None,
    step_s: Annotated[float, typer.Option(min=1, help="Seconds of one line.")] = MINUTE_S,
    capacity: File = Path("capacity.yaml"),
    task: Annotated[
        str,
        typer.Option(
            help="Only this task; by default every task of the file.", autocompletion=among(TASKS)
        ),
    ] = "",
    device: Device = "",
    backlog_s: Backlog = DEFAULTS.backlog_s,
    utilisation: Utilisation = DEFAULTS.target_utilisation,
    min_replicas: Annotated[int, typer.Option(min=1)] = DEFAULTS.min_replicas,
    max_replicas: Annotated[int, typer.Option(min=1)] = DEFAULTS.max_replicas,
    scale_down_s: Annotated[
        float, typer.Option(min=0, help="Seconds of less work before there are fewer.")
    ] = DEFAULTS.scale_down_s,
    rate_window_s: Annotated[
        float, typer.Option(min=1, help="Seconds over which the arrival rate is taken.")
    ] = DEFAULTS.rate_window_s,
    start_s: Annotated[
        float | None,
        typer.Option(
            min=0, help="In place of the file's, or of 60 if it has none.", show_default=False
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="In the beginning; by default what the first step needs.",
            show_default=False,
        ),
    ] = None,
    objective_s: Annotated[
        float | None,
        typer.Option(
            min=0, help="Exit code 1 if over 1 in 100 reviews wait longer.", show_default=False
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write an SVG; several tasks: one each.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write every 15 seconds as CSV.", show_default=False)
    ] = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a task.")] = False,
) -> None:
    """Run arrivals through the scaling policy: how long reviews wait, and what that costs."""
    entries = _entries(capacity, [_task(task)] if task else [], device)
    counts = _counts(arrivals, from_topic, since, until, step_s)
    found = []
    for entry in entries:
        begin = entry.start_s if start_s is None else start_s
        try:
            policy = ScalingPolicy(
                entry.reviews_per_s,
                backlog_s=backlog_s,
                target_utilisation=utilisation,
                min_replicas=min_replicas,
                max_replicas=max_replicas,
                rate_window_s=rate_window_s,
                scale_down_s=scale_down_s,
                start_s=DEFAULTS.start_s if begin is None else begin,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        found.append((entry, replay(policy, counts, step_s, replicas)))
    if as_lines:
        for entry, result in found:
            print(json_text(row_of(entry, result, sum(counts))))
    else:
        out.print(table_of(found, sum(counts), objective_s))
    several = len(found) > 1
    for entry, result in found:
        if plot is not None:
            title = f"{entry.task} on {entry.device}, {entry.reviews_per_s:g} reviews/s a worker"
            _named(plot, entry.task, several).write_text(as_svg(result.moments, title))
        if csv is not None:
            _named(csv, entry.task, several).write_text(as_csv(result.moments))
    missed = [
        entry.task
        for entry, result in found
        if objective_s is not None and result.lag_s(OBJECTIVE_SHARE) > objective_s
    ]
    if missed:
        raise CommandFailed(
            f"over 1 in 100 reviews wait longer than {objective_s:g} s: {', '.join(missed)}; more "
            "replicas at least or at most, or a shorter start, help"
        )


def table_of(
    found: Sequence[tuple[WorkerCapacity, Replayed]], reviews: float, objective_s: float | None
) -> FittingTable:
    """A column for each task."""
    table = FittingTable(
        Column("figure", wraps=True), *right(*(plain(entry.task) for entry, _ in found))
    )
    rows: list[tuple[str, list[str]]] = [("reviews", [f"{reviews:,.0f}"] * len(found))]

    def row(name: str, cells: Iterator[str]) -> None:
        rows.append((name, list(cells)))

    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("longest", 1.0)):
        row(f"seconds waited, {name}", (_seconds(result.lag_s(share)) for _, result in found))
    if objective_s is not None:
        row(
            f"p99 within {objective_s:g} s",
            ("yes" if r.lag_s(OBJECTIVE_SHARE) <= objective_s else "no" for _, r in found),
        )
    row("largest backlog", (f"{r.largest_backlog.backlog:,.0f}" for _, r in found))
    row("seconds to drain it", (_seconds(r.drained_s) for _, r in found))
    row("predicted with the workers of then", (_seconds(r.predicted_drain_s) for _, r in found))
    row("most workers", (str(r.most_replicas) for _, r in found))
    row("changes of their number", (str(len(r.changes)) for _, r in found))
    row("turns from more to fewer or back", (str(r.turns) for _, r in found))
    row("hours of workers", (f"{r.replica_hours:,.1f}" for _, r in found))
    row("US dollars", (_cost(entry, r) for entry, r in found))
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def row_of(entry: WorkerCapacity, result: Replayed, reviews: float) -> dict[str, object]:
    """Seconds that have no end are None."""

    def finite(value: float) -> float | None:
        return round(value, 3) if math.isfinite(value) else None

    rate = entry.dollars_per_hour
    return {
        "task": entry.task,
        "device": entry.device,
        "reviews": round(reviews),
        **{f"waited_s_p{100 * share:g}": finite(result.lag_s(share)) for share in SHARES},
        "largest_backlog": round(result.largest_backlog.backlog),
        "drained_s": finite(result.drained_s),
        "predicted_drain_s": finite(result.predicted_drain_s),
        "most_replicas": result.most_replicas,
        "changes": len(result.changes),
        "turns": result.turns,
        "replica_hours": finite(result.replica_hours),
        "usd": None if rate is None else finite(rate * result.replica_hours),
    }


def _cost(entry: WorkerCapacity, result: Replayed) -> str:
    if entry.dollars_per_hour is None:
        return "-"
    return f"{entry.dollars_per_hour * result.replica_hours:,.2f}"


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:,.0f}"


def _named(path: Path, task: str, several: bool) -> Path:
    return path.with_name(f"{path.stem}.{task}{path.suffix}") if several else path


def _tell(step: LoadStep) -> None:
    word = "holds" if step.holds else FAILED_TRY
    rest = f", failed: {plain(step.failure)}" if step.failed else ""
    if step.is_generators:
        rest += f", sent {step.generator_p95_s:.3f} s late: this machine is too slow to send it"
    err.print(
        f"{step.rate:.1f} reviews/s {word}: {step.answered} of {step.offered} answered, p50 "
        f"{_short(step.p50_s)} p95 {_short(step.p95_s)} s{rest}"
    )


def _short(value: float) -> str:
    return "-" if math.isinf(value) else f"{value:.3f}"


def _task(task: str) -> str:
    if task not in TASKS:
        raise typer.BadParameter(
            f"expected one of {', '.join(TASKS)}, got {task!r:.80}", param_hint="--task"
        )
    return task


def _one_worker(settings: Settings, task: str, address: str) -> str:
    found = (address or str(getattr(settings.workers, task))).strip()
    host, _, port = found.rpartition(":")
    if "," in found or not host or not port.isdigit():
        raise typer.BadParameter(
            f"expected one worker as host:port, got {found!r:.80}", param_hint="--address"
        )
    try:
        resolved = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise CannotReach(f"{found} does not resolve: {error.strerror or error}") from error
    addresses = sorted({str(entry[4][0]) for entry in resolved})
    if len(addresses) > 1:
        raise typer.BadParameter(
            f"expected one worker, {host} has {len(addresses)} addresses: name one of "
            f"{', '.join(addresses[:5])}",
            param_hint="--address",
        )
    return found


@contextmanager
def _client(settings: Settings, task: str, address: str) -> Iterator[InferenceClient]:
    try:
        tls = worker_certificates(settings)
    except WrongSetting as error:
        raise typer.BadParameter(str(error)) from error
    # The client's lines are an enricher's: here no review waits, and each step is told.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    # gRPC leaves calls that were withdrawn to the end of the loop, which tells of each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # A failed answer is one: the enricher would try it again, and it would only be late.
    client = InferenceClient(task, [address], max_attempts=1, tls=tls)
    client.start()
    try:
        yield client
    finally:
        client.close()


def _texts(path: Path | None) -> list[str]:
    if path is None:
        source = resources.files("reviewmesh.local.samples").joinpath("reviews.jsonl")
        lines = source.read_text(encoding="utf-8").splitlines()
    else:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise typer.BadParameter(f"{path}: expected UTF-8: {error}") from error
    found = [text for line in lines if (text := _text_of(line).strip())]
    if not found:
        raise typer.BadParameter(f"{path}: expected texts, found none", param_hint="--texts")
    return found


def _text_of(line: str) -> str:
    if line.startswith("{"):
        try:
            review = json.loads(line)
        except ValueError:
            return line
        if isinstance(review, dict) and isinstance(review.get("text"), str):
            return str(review["text"])
    return line


def _existing(path: Path) -> CapacityFile:
    """What the file holds before anything is measured: a wrong one is told at once."""
    if not path.exists():
        if not path.parent.is_dir():
            raise typer.BadParameter(f"{path.parent} is no folder", param_hint="--output")
        return CapacityFile()
    return _read(path, "--output")


def _read(path: Path, option: str) -> CapacityFile:
    try:
        return read_capacity(path)
    except FileProblem as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _entries(path: Path, tasks: Sequence[str], device: str) -> list[WorkerCapacity]:
    capacity = _read(path, "--capacity")
    chosen = [
        entry
        for entry in capacity.workers
        if (not tasks or entry.task in tasks) and (not device or entry.device == device)
    ]
    if not chosen:
        known = ", ".join(f"{entry.task} on {entry.device}" for entry in capacity.workers)
        raise typer.BadParameter(f"{path} has no such entry; it has: {known or 'none'}")
    names = [entry.task for entry in chosen]
    if len(set(names)) != len(names):
        devices = sorted({entry.device for entry in chosen})
        raise typer.BadParameter(
            f"expected --device, one of {', '.join(devices)}", param_hint="--device"
        )
    return chosen


def _counts(
    path: Path | None, from_topic: bool, since: str | None, until: str | None, step_s: float
) -> list[float]:
    if (path is None) != from_topic:
        raise typer.BadParameter("expected a file of arrivals, or --from-topic")
    if path is not None:
        if since or until:
            raise typer.BadParameter("--since and --until go with --from-topic")
        try:
            return read_arrivals(path)
        except FileProblem as error:
            raise typer.BadParameter(str(error), param_hint="ARRIVALS") from error
    start = None if since is None else _moment("--since", since)[0]
    end = None if until is None else _moment("--until", until)[1]
    began = time.monotonic()
    first, counts = accepted_by_step(connect(), round(step_s * 1000), start, end)
    err.print(
        f"{sum(counts):,} accepted reviews in {len(counts):,} steps from {iso(first)} on, read in "
        f"{time.monotonic() - began:.0f} s"
    )
    return [float(count) for count in counts]


def _moment(option: str, text: str) -> tuple[int, int]:
    span = span_of(text, milliseconds(wall_clock()))
    if span is None or not plausible_ms(span.start_ms):
        raise typer.BadParameter(
            f"expected a time such as 2026-11-30 or '7d ago', got {text!r:.80}", param_hint=option
        )
    return span.start_ms, span.end_ms
