"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from reviewmesh_models.evaluation.compare import EngineComparison
from reviewmesh_models.evaluation.few_rows import said_of_few
from reviewmesh_models.evaluation.gate import (
    GOLDEN_HELD,
    GOLDEN_RIGHT,
    Gate,
    GateResult,
    golden_rules,
)
from reviewmesh_models.evaluation.report import Against, LabelScores, Report, Score


def print_report(report: Report, gate: Gate, console: Console) -> None:
    console.print(_scores(report))
    for against in report.against:
        console.print(_against(against))
    for task, labels in report.labels.items():
        console.print(_labels(task, labels))
    for kind, slices in report.slices.items():
        console.print(_slices(kind, slices))
    if report.hostile:
        console.print(_hostile(report))
    console.print(_golden(report, gate))
    for line in few_rows(report):
        console.print(line, soft_wrap=True)
    speed = report.speed
    console.print(
        f"{speed.reviews_per_s.value:.0f} reviews/s with {speed.in_flight} in flight; one at a "
        f"time p50 {speed.latency_p50_ms.value:.1f} ms, p95 {speed.latency_p95_ms.value:.1f} ms"
    )


def print_gate(result: GateResult, title: str, console: Console) -> None:
    table = _table(title, "rule", "wanted", "got", "")
    for rule in result.rules:
        table.add_row(rule.name, rule.wanted, rule.got, rule.verdict)
    console.print(table)


def print_comparison(comparison: EngineComparison, console: Console) -> None:
    ours, theirs = (
        f"{package.name} {package.version} on {package.engine}"
        for package in (comparison.ours, comparison.theirs)
    )
    for task, compared in comparison.tasks.items():
        table = _table(f"{task}: where they differ", "review", ours, theirs)
        for case in compared.disagreements:
            table.add_row(str(case.text), _listed(case.ours), _listed(case.theirs))
        if compared.disagreements:
            console.print(table)
    table = _table(
        f"{ours} and {theirs}, {comparison.texts} reviews", "task", "same", "largest gap"
    )
    for task, compared in comparison.tasks.items():
        table.add_row(task, f"{compared.same:.2%}", f"{compared.largest_gap:.4f}")
    table.add_row("all together", f"{comparison.same:.2%}", "")
    console.print(table)


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{said} {score:.4f}" for said, score in scores.items()) or "nothing"


def _scores(report: Report) -> Table:
    package = report.package
    title = f"{package.name} {package.version} on {package.engine}, {package.digest[:19]}…"
    table = _table(title, "score", "rows", "value", "95 % interval", "commonest answer")
    for name, score in report.scores.items():
        baseline = report.baselines.get(name)
        said = "" if baseline is None else f"{baseline:.3f}"
        table.add_row(name, str(score.rows), f"{score.value:.4f}", _range(score), said)
    return table


def _against(against: Against) -> Table:
    other = against.package
    title = f"less {other.name} {other.version} on {other.engine}, {other.digest[:19]}…"
    table = _table(title, "score", "theirs", "difference", "95 % interval")
    for name, difference in against.differences.items():
        theirs = f"{against.scores[name].value:.4f}"
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
        table.add_row(name, theirs, f"{difference.value:+.4f}", interval)
    table.caption = "\n".join(against.without()) or None
    return table


def _labels(task: str, labels: dict[str, LabelScores]) -> Table:
    table = _table(task, "label", "precision", "recall", "F1", "95 % interval", "gold", "said")
    for label, of in labels.items():
        numbers = (f"{value:.3f}" for value in (of.precision, of.recall, of.f1.value))
        table.add_row(label, *numbers, _range(of.f1), str(of.gold), str(of.said))
    return table


def _slices(kind: str, slices: dict[str, dict[str, Score]]) -> Table:
    table = _table(f"by {kind}", "slice", "score", "rows", "value", "95 % interval")
    for place, scores in slices.items():
        for name, score in scores.items():
            table.add_row(place, name, str(score.rows), f"{score.value:.3f}", _range(score))
    return table


def _hostile(report: Report) -> Table:
    tasks = sorted({task for family in report.hostile.values() for task in family.flips})
    headings = [f"{task} {what}" for task in tasks for what in ("flips", "reached")]
    table = _table("hostile texts", "kind", "texts", "failed", *headings)
    for name, family in report.hostile.items():
        cells = []
        for task in tasks:
            reached = family.reached.get(task)
            cells.append(f"{family.flips[task].value:.1%}")
            cells.append("" if reached is None else f"{reached.value:.1%}")
        table.add_row(name, str(family.texts), str(family.failed), *cells)
    return table


def _golden(report: Report, gate: Gate) -> Table:
    rules = golden_rules(report, gate)
    table = _table("golden rows", "task", "right", "", "injections without effect", "")

    def verdict(task: str, kind: str) -> str:
        rule = rules.get(f"{task}.{kind}")
        return f"{rule.wanted}: {rule.verdict}" if rule else "the gate has no bound"

    for task, golden in report.golden.items():
        table.add_row(
            task,
            f"{golden.right} of {golden.rows}",
            verdict(task, GOLDEN_RIGHT),
            f"{golden.held} of {golden.injections}",
            verdict(task, GOLDEN_HELD),
        )
    return table


def few_rows(report: Report) -> list[str]:
    """A line for each score that decides nothing."""
    return [
        f"few rows: {name} {score.value:.3f} is {few}"
        for name, score in report.scores.items()
        if (few := said_of_few(score))
    ]


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _range(score: Score) -> str:
    return f"{score.low:.3f} to {score.high:.3f}"
