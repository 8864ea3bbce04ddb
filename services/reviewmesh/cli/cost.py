"""`reviewmesh cost`: what the answers cost, by task, model, route, provider, business and day."""

from __future__ import annotations

from typing import Annotated

import typer

from reviewmesh.cli.tables import Column, FittingTable, right
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.cli.times import TIMES, span_named
from reviewmesh.leaving.amounts import NOTHING
from reviewmesh.query.connection import connect
from reviewmesh.query.cost import DIMENSIONS, MEASURES, CostKey, Costs, Total, costs
from reviewmesh.query.values import iso
from reviewmesh_kit.printable import plain

FULL_BELOW = 100_000
SIZES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
MICROS = 1_000_000


def cost(
    by: Annotated[
        str, typer.Option(help=f"Sum by these, with commas: {','.join(DIMENSIONS)}.")
    ] = "task,model,route",
    since: Annotated[
        str | None, typer.Option(help=f"Only answers from then on: {TIMES}.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only answers up to then, a day whole.", show_default=False)
    ] = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a row.")] = False,
) -> None:
    """Sum answers, tokens and money, as far as results tell them; see docs/cost.md."""
    chosen = _dimensions(by)
    start = None if since is None else span_named("--since", since)[0]
    end = None if until is None else span_named("--until", until)[1]
    if start is not None and end is not None and start >= end:
        raise typer.BadParameter("expected --since before --until")
    found = costs(connect(), chosen, start, end)
    if as_lines:
        for key, total in found.ordered():
            print(json_text(row_of(found.by, key, total)))
    else:
        out.print(table_of(found) if found.totals else "no answers")
    for note in _notes(found):
        err.print(note)


def _dimensions(by: str) -> list[str]:
    names = [name.strip() for name in by.split(",")]
    if len(set(names)) != len(names) or not set(names) <= set(DIMENSIONS):
        raise typer.BadParameter(
            f"expected some of {', '.join(DIMENSIONS)}, each once, got {by!r:.80}",
            param_hint="--by",
        )
    return names


def table_of(found: Costs) -> FittingTable:
    """Counts are shortened; money is exact. `+`: some answers lack the figure, `-`: all do."""
    table = FittingTable(
        *(Column(name, wraps=True) for name in found.by),
        *right("answers", "failed", "calls", "requests", "prompt", "cached", "output"),
        *right("US dollars", "unpriced"),
    )
    for key, total in found.ordered():
        table.add_row(*(plain(part) if part else "-" for part in key), *_cells(total))
    if len(found.totals) > 1:
        table.add_row(*("all", *[""] * (len(found.by) - 1)), *_cells(found.total()))
    return table


def _cells(total: Total) -> list[str]:
    return [
        short(total.answers),
        short(total.failed),
        *(_at_least(total, name, short(total.sums[name])) for name in MEASURES[:-1]),
        _at_least(total, "cost_micros", dollars(total.sums["cost_micros"])),
        short(total.unknown["cost_micros"]),
    ]


def _at_least(total: Total, name: str, shown: str) -> str:
    if total.is_unknown(name):
        return "-"
    return f"{shown}+" if total.unknown[name] else shown


def short(number: int) -> str:
    """At most six characters; from 100,000 on three digits, cut off."""
    if number < FULL_BELOW:
        return f"{number:,}"
    size, letter = next(item for item in SIZES if number >= item[0])
    decimals = max(0, 3 - len(str(number // size)))
    whole, rest = divmod(number * 10**decimals // size, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}{letter}" if decimals else f"{whole}{letter}"


def dollars(micros: int) -> str:
    """Exact to the millionth."""
    return f"{micros // MICROS:,}.{micros % MICROS:06d}"


def row_of(by: tuple[str, ...], key: CostKey, total: Total) -> dict[str, object]:
    """A sum that no answer has is None; `unknown` counts the answers that lack it."""
    return {
        **dict(zip(by, key, strict=True)),
        "answers": total.answers,
        "failed": total.failed,
        **{name: None if total.is_unknown(name) else total.sums[name] for name in MEASURES},
        "unknown": {name: total.unknown[name] for name in MEASURES},
    }


def _notes(found: Costs) -> list[str]:
    notes = []
    if found.oldest_ms is not None:
        notes.append(f"the oldest answer that was counted was written {iso(found.oldest_ms)}")
    if found.unanswered != NOTHING:
        notes.append(
            f"{found.unanswered.requests:,} requests and {dollars(found.unanswered.micros)} US "
            "dollars at most are of calls without a result"
        )
    if found.without_review:
        notes.append(
            f"{found.without_review:,} answers: their accepted review is not kept any more"
        )
    if found.skipped:
        notes.append(f"{found.skipped:,} records skipped that no enricher writes")
    return notes
