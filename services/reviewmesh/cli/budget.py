"""`reviewmesh budget`: what the fallback has reserved, spent and left."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.tables import Column, FittingTable, right
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.clock import wall_clock
from reviewmesh.leaving.accounts import Account, is_period, periods_at
from reviewmesh.leaving.amounts import MICROS
from reviewmesh.leaving.budgets import ALL, Budgets, read_budgets
from reviewmesh.leaving.yamlfile import FileProblem
from reviewmesh.query.budgets import BudgetLine, in_unit, lines_of, spending
from reviewmesh.query.connection import Connection, connect
from reviewmesh_kit.printable import plain
from reviewmesh_schemas.names import ACCEPTED


def budget(
    period: Annotated[
        str | None,
        typer.Option(
            help="A day (2026-11-29) or a month (2026-11) in UTC; without it this day and month.",
            show_default=False,
        ),
    ] = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a row.")] = False,
) -> None:
    """Show what the fallback has reserved, spent and left; see docs/routes.md."""
    if period is not None and not is_period(Account(period, ALL)):
        raise typer.BadParameter(
            f"expected a day or a month such as 2026-11-29 or 2026-11, got {period!r:.80}",
            param_hint="--period",
        )
    connection = connect()
    budgets = _budgets(connection)
    found = spending(connection)
    periods = periods_at(wall_clock()) if period is None else (period,)
    lines = list(lines_of(periods, budgets, found.by_account()))
    if as_lines:
        for line in lines:
            print(json_text(row_of(line)))
    else:
        out.print(table_of(lines) if lines else "no budget, and nothing was spent")
    if budgets is None:
        err.print("REVIEWMESH_BUDGETS is not set here: enrichers without it let nothing leave")
    if found.skipped:
        err.print(f"{found.skipped:,} records skipped that no enricher writes")


def _budgets(connection: Connection) -> Budgets | None:
    """Raises CommandFailed."""
    path = connection.settings.budgets
    if path is None:
        return None
    try:
        return read_budgets(path, connection.partitions(ACCEPTED))
    except FileProblem as error:
        raise CommandFailed(f"REVIEWMESH_BUDGETS: {error}") from error


def table_of(lines: list[BudgetLine]) -> FittingTable:
    table = FittingTable(
        *("period", Column("business", wraps=True), "unit"),
        *right("budget", "reserved", "settled", "orphaned", "left"),
    )
    for line in lines:
        numbers = (line.budget, line.reserved, line.settled, line.orphaned, line.left)
        table.add_row(
            line.period,
            plain(line.business_id) if line.business_id != ALL else "all",
            line.unit,
            *("-" if number is None else in_unit(line.unit, number) for number in numbers),
        )
    return table


def row_of(line: BudgetLine) -> dict[str, Any]:
    def exact(number: int | None) -> float | int | None:
        return number / MICROS if line.unit == "usd" and number is not None else number

    return {
        "period": line.period,
        "business": line.business_id or None,
        "unit": line.unit,
        "budget": exact(line.budget),
        "reserved": exact(line.reserved),
        "settled": exact(line.settled),
        "orphaned": exact(line.orphaned),
        "left": exact(line.left),
    }
