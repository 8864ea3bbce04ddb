"""The agreement as one HTML page: no script, nothing loaded, untrusted texts escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from reviewmesh_kit.printable import plain
from reviewmesh_models.evaluation.elements import (
    SCORE,
    Cells,
    document,
    facts,
    number,
    score_cells,
    section,
    table,
    words,
)
from reviewmesh_models.evaluation.report import Score
from reviewmesh_models.labelling.agreement import Agreement, Pair, TaskAgreement

PAGE_FILE: Final = "agreement.html"
_SHOWN_TEXT: Final = 400


def write_page(agreement: Agreement, folder: Path) -> Path:
    file = folder / PAGE_FILE
    file.write_text(page_of(agreement), encoding="utf-8")
    return file


def page_of(agreement: Agreement) -> str:
    sections = [_about(agreement)]
    for name, task in agreement.tasks.items():
        sections += [
            _alphas(name, task),
            _reliability(name, task),
            _confusion(name, task),
            _gold(name, task),
            _costs(name, task),
            _judges(name, task),
        ]
    sections.append(_disagreements(agreement))
    return document("Agreement of teachers", [one for one in sections if one])


def _about(agreement: Agreement) -> str:
    return facts(
        {
            "teachers": ", ".join(agreement.teachers),
            "reviews": f"{agreement.reviews:,}, of which {agreement.gold:,} are gold",
            "spent or reserved": f"{agreement.requests:,} requests, {agreement.tokens:,} tokens, "
            f"{agreement.money:.4f} of money",
        }
    )


def _alphas(name: str, task: TaskAgreement) -> str:
    rows = [[words(label), *_score(score)] for label, score in task.alpha.items()]
    note = (
        "Krippendorff's alpha of the teachers: 1 is full agreement, 0 what chance gives. Intervals "
        "are of reviews drawn anew 1,000 times. A label that nobody or everybody says has none."
    )
    return section(f"{name}: agreement", note, table(("label", *SCORE), rows))


def _score(score: Score | None) -> Cells:
    return [words("none"), words(""), words("")] if score is None else score_cells(score)


def _reliability(name: str, task: TaskAgreement) -> str:
    rows = [
        [
            words(teacher),
            *(number(f"{share:.3f}") for share in by_label.values()),
            number(f"{task.failures[teacher]:,}"),
        ]
        for teacher, by_label in task.reliability.items()
    ]
    note = (
        "How often a teacher says a label of what is one, estimated from the answers alone (Dawid "
        "and Skene). It weighs the teachers in the consensus."
    )
    headings = ("teacher", *task.labels, "reviews without labels")
    return section(f"{name}: reliability", note, table(headings, rows))


def _confusion(name: str, task: TaskAgreement) -> str:
    tables = "".join(_pair(task, pair) for pair in task.pairs)
    return section(f"{name}: confusion between teachers", "Units by what both say.", tables)


def _pair(task: TaskAgreement, pair: Pair) -> str:
    rows = [
        [words(label), *(number(f"{count:,}") for count in counts)]
        for label, counts in zip(task.labels, pair.counts, strict=True)
    ]
    headings = (f"{pair.one} down, {pair.other} across", *task.labels)
    names = "".join(
        f"<p>F1 of {escape(kind)}: {score.value:.3f} ({score.low:.3f} to {score.high:.3f})</p>"
        for kind, score in pair.names.items()
    )
    title = f"{pair.one} and {pair.other}: the same for {pair.same:.1%}"
    return f"<h3>{escape(title)}</h3>{names}{table(headings, rows)}"


def _gold(name: str, task: TaskAgreement) -> str:
    gold = task.gold
    if gold is None:
        return ""
    rows = [[words(teacher), *score_cells(score)] for teacher, score in gold.teachers.items()]
    rows.append([words("consensus"), *score_cells(gold.consensus)])
    difference = gold.difference
    note = (
        f"{gold.measure} on {gold.rows:,} gold rows. The consensus less the best teacher, "
        f"{gold.best}: {difference.value:+.3f} (95 % from {difference.low:+.3f} to "
        f"{difference.high:+.3f})."
    )
    return section(f"{name}: against gold", note, table(("teacher", *SCORE), rows))


def _costs(name: str, task: TaskAgreement) -> str:
    costs = task.costs
    said = {
        "reviews with a disagreement": _of(costs.disputed, costs.reviews),
        "reviews too unsure to learn from": _of(costs.left_out, costs.reviews),
        "money per row that is left": _or_unknown(costs.money_per_kept_row, ".6f"),
        "consensus wrong, teachers agree": _or_unknown(costs.wrong_where_agreed, ".1%"),
        "consensus wrong, teachers differ": _or_unknown(costs.wrong_where_disputed, ".1%"),
        "a decision of a person": _or_unknown(costs.seconds_a_decision, ".1f", " s, the median"),
        "all disputed units decided": _or_unknown(
            None
            if costs.seconds_a_decision is None
            else costs.seconds_a_decision * costs.disputed_units / 60,
            ".0f",
            f" minutes of a person, {costs.disputed_units:,} units",
        ),
    }
    note = "Wrong answers are measured on gold; seconds on what people decided."
    return section(f"{name}: what a disagreement costs", note, facts(said))


def _of(some: int, all_: int) -> str:
    return f"{some:,} of {all_:,} ({some / max(all_, 1):.1%})"


def _or_unknown(value: float | None, form: str, unit: str = "") -> str:
    return "not measured" if value is None else f"{value:{form}}{unit}"


def _judges(name: str, task: TaskAgreement) -> str:
    if not task.judges:
        return ""
    rows = [
        [
            words(f"{pair.one} and {pair.other}"),
            number(f"{pair.units:,}"),
            number(f"{pair.same:.1%}"),
            *_score(pair.alpha),
        ]
        for pair in task.judges
    ]
    headings = ("judges", "units of both", "the same", "alpha", *SCORE[1:])
    note = "Of what both decided, neither with sight of the other."
    return section(f"{name}: judges", note, table(headings, rows))


def _disagreements(agreement: Agreement) -> str:
    rows: list[Sequence[str]] = []
    for one in agreement.disagreements:
        said = "; ".join(
            f"{_what(unit['what'])}{', '.join(f'{k}: {v}' for k, v in unit['said'].items())}"
            for unit in one["units"]
        )
        text = plain(one["text"])
        shown = text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…"
        rows.append([words(one["task"]), number(f"{one['doubt']:.2f}"), words(shown), words(said)])
    note = "Most doubt of the consensus first, in bits: what a decision there would tell."
    return section("Disagreements", note, table(("task", "doubt", "review", "said"), rows))


def _what(what: object) -> str:
    return "" if what is None else f"{what}: "
