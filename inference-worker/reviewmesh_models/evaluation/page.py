"""The report as a page of its own: no script, nothing loaded, every plot inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Final

from reviewmesh_models.evaluation import plots
from reviewmesh_models.evaluation.report import PAGE_FILE, Against, Report, Score

_SCORE: Final = ("value", "95 % interval", "from 0 to 1")
_LEAST_REACH: Final = 0.01
"""Of the axis of differences, so that hardly any difference looks like hardly any."""

Cells = Sequence[str]
"""HTML of a row's cells."""


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
    style = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Evaluation of {escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>Evaluation of {escape(title)}</h1>\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def _about(report: Report) -> str:
    speed = report.speed
    facts = {
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
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{listed}</dl>"


def _scores(report: Report) -> str:
    rows = []
    for name, score in report.scores.items():
        baseline = report.baselines.get(name)
        rows.append(
            [
                _words(name),
                *_score(score, ".4f"),
                _number("" if baseline is None else f"{baseline:.3f}"),
                _number(f"{score.rows:,}"),
            ]
        )
    headings = ("score", *_SCORE, "commonest answer", "rows")
    note = (
        "Intervals are of rows drawn anew 1,000 times. “Commonest answer” is what one would "
        "reach who always says what is commonest in these rows. Lower is better for "
        "calibration_error, failed and flip_rate."
    )
    return _section("Scores", note, _table(headings, rows))


def _against(against: Against) -> str:
    other = against.package
    ends = [abs(end) for one in against.differences.values() for end in (one.low, one.high)]
    reach = max([*ends, _LEAST_REACH])
    rows = [
        [
            _words(name),
            _number(f"{against.scores[name].value:.4f}"),
            _number(f"{difference.value:+.4f}"),
            _number(f"{difference.low:+.3f} to {difference.high:+.3f}"),
            _plot(
                plots.interval(
                    difference.low, difference.value, high=difference.high, start=-reach, end=reach
                )
            ),
        ]
        for name, difference in against.differences.items()
    ]
    headings = ("score", "theirs", "difference", "95 % interval", f"around 0, ±{reach:.3f}")
    note = f"Ours less theirs, on the same rows and the same draws. {other.digest}"
    title = f"Against {other.name} {other.version} on {other.engine}"
    return _section(title, note, _table(headings, rows))


def _labels(report: Report) -> str:
    tables = []
    for task, labels in report.labels.items():
        rows = [
            [
                _words(label),
                *_score(of.f1),
                *(_number(f"{value:.3f}") for value in (of.precision, of.recall)),
                *(_number(f"{count:,}") for count in (of.gold, of.said)),
            ]
            for label, of in labels.items()
        ]
        headings = ("label", "F1", *_SCORE[1:], "precision", "recall", "is", "said")
        tables.append(f"<h3>{escape(task)}</h3>{_table(headings, rows)}")
    return _section("Labels", "", "".join(tables))


def _plots(report: Report) -> str:
    figures = [
        _figure(f"{task}: calibration", plots.calibration(bins))
        for task, bins in report.calibration.items()
        if bins
    ]
    if report.confusion is not None:
        drawn = plots.confusion(report.confusion, "no answer")
        figures.insert(0, _figure("sentiment: confusion", drawn))
    note = (
        "Calibration: a dot per tenth of stated probability, larger for more answers. Topics and "
        "entities state a probability for what they say only, so their dots start where a topic "
        "or a span is said at all."
    )
    return _section("Plots", note, f'<div class="plots">{"".join(figures)}</div>')


def _slices(report: Report) -> str:
    tables = []
    for kind, slices in report.slices.items():
        rows = [
            [_words(place), _words(name), *_score(score), _number(f"{score.rows:,}")]
            for place, scores in slices.items()
            for name, score in scores.items()
        ]
        headings = ("slice", "score", *_SCORE, "rows")
        tables.append(f"<h3>by {escape(kind)}</h3>{_table(headings, rows)}")
    return _section("Slices", "", "".join(tables))


def _hostile(report: Report) -> str:
    tasks = sorted({task for family in report.hostile.values() for task in family.flips})
    rows = []
    for name, family in report.hostile.items():
        cells = [_words(name.replace("_", " "))]
        cells += [_number(f"{count:,}") for count in (family.texts, family.failed)]
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
    return _section("Hostile texts", note, _table(headings, rows))


def _golden(report: Report) -> str:
    counts = [
        [
            _words(task),
            _number(f"{golden.right} of {golden.rows}"),
            _number(f"{golden.held} of {golden.injections}"),
        ]
        for task, golden in report.golden.items()
    ]
    missed = [
        [_words(task), _words(miss.text), _words(miss.wanted), _words(miss.got)]
        for task, golden in report.golden.items()
        for miss in golden.missed
    ]
    tables = _table(("task", "right", "injections without effect"), counts)
    if missed:
        tables += _table(("task", "missed", "wanted", "got"), missed)
    note = "Rows that come with the tasks: hard cases, several languages, injections."
    return _section("Golden rows", note, tables)


def _section(title: str, note: str, content: str) -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{content}</section>"


def _figure(caption: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawn}</figure>"


def _table(headings: Iterable[str], rows: Sequence[Cells]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _score(score: Score, form: str = ".3f") -> list[str]:
    """The cells under `_SCORE`."""
    return [
        _number(f"{score.value:{form}}"),
        _number(f"{score.low:.3f} to {score.high:.3f}"),
        _plot(plots.interval(score.low, score.value, high=score.high, start=0, end=1)),
    ]


def _words(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _number(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>'


def _plot(drawn: str) -> str:
    return f"<td>{drawn}</td>"


def _percent(score: Score | None) -> str:
    if score is None:
        return _number("")
    return _number(f"{score.value:.1%} ({score.low:.1%} to {score.high:.1%})")


def _spread(score: Score, form: str) -> str:
    return f"{score.value:{form}} ({score.low:{form}} to {score.high:{form}})"
