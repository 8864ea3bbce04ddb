"""The screen of budgets: what the fallback has reserved, spent and left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.routing import Route

from reviewmesh.clock import wall_clock
from reviewmesh.console.kept import KeptReading
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.moving import MovingScreen, Templates
from reviewmesh.leaving.accounts import Account, is_period, periods_at
from reviewmesh.leaving.budgets import ALL, Budgets, read_budgets
from reviewmesh.leaving.yamlfile import FileProblem
from reviewmesh.query.budgets import BudgetLine, SpentByAccount, in_unit, lines_of, spending
from reviewmesh_kit.settings import variable
from reviewmesh_schemas.names import ACCEPTED

# As the alert BudgetNearlySpent has it.
NEARLY_SPENT = 0.8
PERIODS_SHOWN = 400
BUSINESSES_A_PERIOD = 200


@dataclass(frozen=True, slots=True)
class SpentSoFar:
    """What was spent, and the budgets of this process's settings."""

    spent: SpentByAccount
    budgets: Budgets | None
    problem: str
    """Why the file of budgets cannot be read."""


@dataclass(frozen=True, slots=True)
class ShownBudget:
    """A line, in words."""

    line: BudgetLine
    business: str
    used: float | None
    """Share of the budget; None where nothing limits it."""

    @property
    def amounts(self) -> tuple[str, ...]:
        line = self.line
        numbers = (line.budget, line.reserved, line.settled, line.orphaned, line.left)
        return tuple(
            "no limit" if number is None else in_unit(line.unit, number) for number in numbers
        )

    @property
    def is_spent(self) -> bool:
        return self.used is not None and self.used >= 1

    @property
    def is_nearly_spent(self) -> bool:
        return self.used is not None and self.used > NEARLY_SPENT


def kept_spending(mesh: Mesh, log: structlog.stdlib.BoundLogger) -> KeptReading[SpentSoFar]:
    return KeptReading(lambda: read_spending(mesh), log)


def routes_of(kept: KeptReading[SpentSoFar], templates: Templates) -> list[Route]:
    return MovingScreen("budgets", templates, lambda query: shown(kept, query)).routes()


def read_spending(mesh: Mesh) -> SpentSoFar:
    """Raises CannotReach and KafkaException."""
    connection = mesh.connection()
    budgets, problem = None, ""
    if (path := connection.settings.budgets) is not None:
        try:
            budgets = read_budgets(path, connection.partitions(ACCEPTED))
        except FileProblem as error:
            problem = f"{variable('budgets')}: {error}"
    return SpentSoFar(spending(connection), budgets, problem)


def shown(kept: KeptReading[SpentSoFar], query: Mapping[str, str]) -> dict[str, Any]:
    reading = kept.reading()
    now = periods_at(wall_clock())
    wanted = query.get("period", "")
    known = not wanted or is_period(Account(wanted, ALL))
    chosen = (wanted,) if wanted and known else now
    found = reading.value
    spent = {} if found is None else found.spent.by_account()
    earlier = sorted({account.period for account in spent} - set(now), reverse=True)
    return {
        "reading": reading,
        "period": wanted,
        "known_period": known,
        "earlier": earlier[:PERIODS_SHOWN],
        "periods": [
            (_title(period, now), shown_lines(period, found.budgets, spent))
            for period in chosen
            if found is not None
        ],
        "businesses_shown": BUSINESSES_A_PERIOD,
        "variable": variable("budgets"),
    }


def shown_lines(
    period: str, budgets: Budgets | None, spent: Mapping[Account, Any]
) -> list[ShownBudget]:
    """All businesses first, then by name, as many as a page holds."""
    found: list[ShownBudget] = []
    businesses: set[str] = set()
    for line in lines_of((period,), budgets, spent):
        businesses.add(line.business_id)
        if len(businesses) > BUSINESSES_A_PERIOD:
            break
        used = None
        if line.budget is not None:
            taken = line.reserved + line.settled + line.orphaned
            used = taken / line.budget if line.budget else 1.0
        name = "all" if line.business_id == ALL else line.business_id
        found.append(ShownBudget(line, name, used))
    return found


def _title(period: str, now: tuple[str, ...]) -> str:
    if period in now:
        return f"{'This month' if period == now[-1] else 'Today'} ({period}, in UTC)"
    return f"{period} (in UTC)"
