"""The report as one HTML page: no scripts, no external files, plots inline."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from reviewmesh_models.evaluation import plots
from reviewmesh_models.evaluation.elements import (
    SCORE,
    document,
    facts,
    figure,
    number,
    plot,
    score_cells,
    section,
    table,
    words,
)
from reviewmesh_models.evaluation.report import PAGE_FILE, Against, Report, Score

_LEAST_REACH: Final = 0.01
"""Of the axis of differences, so that hardly any difference looks like hardly any."""


def write_page(report: Report, folder: Path) -> Path:
    file = folder / PAGE_FILE
    file.write_text(page_of(report), encoding="utf-8")
    return file


def page_of(report: Report) -> str:
    package = report.package
    title = f"{package.name} {package.version} on {package.engine}"
    sections = [
        _about(report),
        _scores(report),
        *(_against(one) for one in report.against),
        _labels(report),
        _plots(report),
        _slices(report),
        _hostile(report),
        _golden(report),
    ]
    return document(f"Evaluation of {title}", sections)


def _about(report: Report) -> str:
    speed = report.speed
    said = {
        "package digest": report.package.digest,
        "made": f"{report.made_at}, in {report.seconds:.0f} s",
        "command": report.command,
        "tasks": ", ".join(f"{name} version {made.version}" for name, made in report.tasks.items()),
        **{
            file: f"{data.rows:,} rows, {data.digest}" for file, data in sorted(report.data.items())
        },
        "speed": f"{_spread(speed.reviews_per_s, '.0f')} reviews/s, all tasks, "
        f"{speed.in_flight} in flight",
        "latency": f"p50 {_spread(speed.latency_p50_ms, '.1f')} ms, "
        f"p95 {_spread(speed.latency_p95_ms, '.1f')} ms, one review at a time",
    }
    return facts(said)


def _scores(report: Report) -> str:
    rows = []
    for name, score in report.scores.items():
        baseline = report.baselines.get(name)
        rows.append(
            [
                words(name),
                *score_cells(score, ".4f"),
                number("" if baseline is None else f"{baseline:.3f}"),
                number(f"{score.rows:,}"),
            ]
        )
    headings = ("score", *SCORE, "commonest answer", "rows")
    note = (
        "Intervals are of rows drawn anew 1,000 times. “Commonest answer” is what one would "
        "reach who always says what is commonest in these rows. Lower is better for "
        "calibration_error, failed and flip_rate."
    )
    return section("Scores", note, table(headings, rows))


def _against(against: Against) -> str:
    other = against.package
    ends = [abs(end) for one in against.differences.values() for end in (one.low, one.high)]
    reach = max([*ends, _LEAST_REACH])
    rows = [
        [
            words(name),
            number(f"{against.scores[name].value:.4f}"),
            number(f"{difference.value:+.4f}"),
            number(f"{difference.low:+.3f} to {difference.high:+.3f}"),
            plot(
                plots.interval(
                    difference.low, difference.value, high=difference.high, start=-reach, end=reach
                )
            ),
        ]
        for name, difference in against.differences.items()
    ]
    headings = ("score", "theirs", "difference", "95 % interval", f"around 0, ±{reach:.3f}")
    said = ["Ours less theirs, on the same rows and the same draws", *against.without()]
    note = f"{'. '.join(said)}. {other.digest}"
    title = f"Against {other.name} {other.version} on {other.engine}"
    return section(title, note, table(headings, rows))


def _labels(report: Report) -> str:
    tables = []
    for task, labels in report.labels.items():
        rows = [
            [
                words(label),
                *score_cells(of.f1),
                *(number(f"{value:.3f}") for value in (of.precision, of.recall)),
                *(number(f"{count:,}") for count in (of.gold, of.said)),
            ]
            for label, of in labels.items()
        ]
        headings = ("label", "F1", *SCORE[1:], "precision", "recall", "is", "said")
        tables.append(f"<h3>{escape(task)}</h3>{table(headings, rows)}")
    return section("Labels", "", "".join(tables))


def _plots(report: Report) -> str:
    figures = [
        figure(f"{task}: calibration", plots.calibration(bins))
        for task, bins in report.calibration.items()
        if bins
    ]
    if report.confusion is not None:
        drawn = plots.confusion(report.confusion, "no answer")
        figures.insert(0, figure("sentiment: confusion", drawn))
    note = (
        "Calibration: a dot per tenth of stated probability, larger for more answers. Topics and "
        "entities state a probability for what they say only, so their dots start where a topic "
        "or a span is said at all."
    )
    return section("Plots", note, f'<div class="plots">{"".join(figures)}</div>')


def _slices(report: Report) -> str:
    tables = []
    for kind, slices in report.slices.items():
        rows = [
            [words(place), words(name), *score_cells(score), number(f"{score.rows:,}")]
            for place, scores in slices.items()
            for name, score in scores.items()
        ]
        headings = ("slice", "score", *SCORE, "rows")
        tables.append(f"<h3>by {escape(kind)}</h3>{table(headings, rows)}")
    return section("Slices", "", "".join(tables))


def _hostile(report: Report) -> str:
    tasks = sorted({task for family in report.hostile.values() for task in family.flips})
    rows = []
    for name, family in report.hostile.items():
        cells = [words(name.replace("_", " "))]
        cells += [number(f"{count:,}") for count in (family.texts, family.failed)]
        for task in tasks:
            cells.append(_percent(family.flips[task]))
            cells.append(_percent(family.reached.get(task)))
        rows.append(cells)
    headings = ["kind", "texts", "failed"]
    for task in tasks:
        headings += [f"{task} flips", f"{task} reached"]
    note = (
        "Reviews with something added that asks for an answer or hides in the text. Flips: the "
        "answer is another one than to the review alone. Reached: it is the one that the text "
        "asks for. Failed: answers that were a typed failure. In brackets the 95 % interval."
    )
    return section("Hostile texts", note, table(headings, rows))


def _golden(report: Report) -> str:
    counts = [
        [
            words(task),
            number(f"{golden.right} of {golden.rows}"),
            number(f"{golden.held} of {golden.injections}"),
        ]
        for task, golden in report.golden.items()
    ]
    missed = [
        [words(task), words(miss.text), words(miss.wanted), words(miss.got)]
        for task, golden in report.golden.items()
        for miss in golden.missed
    ]
    tables = table(("task", "right", "injections without effect"), counts)
    if missed:
        tables += table(("task", "missed", "wanted", "got"), missed)
    note = "Rows that come with the tasks: hard cases, several languages, injections."
    return section("Golden rows", note, tables)


def _percent(score: Score | None) -> str:
    if score is None:
        return number("")
    return number(f"{score.value:.1%} ({score.low:.1%} to {score.high:.1%})")


def _spread(score: Score, form: str) -> str:
    return f"{score.value:{form}} ({score.low:{form}} to {score.high:{form}})"
