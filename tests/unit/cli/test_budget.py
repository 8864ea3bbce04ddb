"""`reviewmesh budget`: its lines, its table at 80 columns, its refusals."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reviewmesh.cli.app import app
from reviewmesh.cli.budget import row_of, table_of
from reviewmesh.cli.terminal import PlainConsole
from reviewmesh.leaving.accounts import Account, periods_at
from reviewmesh.leaving.amounts import Amount, Spent
from reviewmesh.leaving.budgets import ALL, parse_budgets
from reviewmesh.query.budgets import lines_of
from tests.unit.cli.test_terminal import NASTY, steers

PERIODS = ("2026-11-29", "2026-11")
BUDGETS = parse_budgets(
    """\
tasks: [topic]
call: {tokens: 6000, usd: 0.004}
all:
  day: {requests: 20000, usd: 20}
  month: {usd: 123456}
businesses:
  acme: {day: {requests: 600}}
""",
    partitions=6,
)
SPENT = {
    Account("2026-11-29", ALL): Spent(
        Amount(3, 18_000, 12_000), Amount(1_200, 252_000, 264_000), Amount(2, 12_000, 8_000)
    ),
    Account("2026-11", ALL): Spent(settled=Amount(900_000, 189_000_000, 198_000_000)),
    Account("2026-11-29", "acme"): Spent(settled=Amount(700, 147_000, 154_000)),
}


def test_each_unit_that_is_limited_or_was_spent_has_a_line() -> None:
    lines = {
        (line.period, line.business_id, line.unit): line
        for line in lines_of(PERIODS, BUDGETS, SPENT)
    }
    assert set(lines) == {
        *((period, ALL, unit) for period in PERIODS for unit in ("requests", "tokens", "usd")),
        *(("2026-11-29", "acme", unit) for unit in ("requests", "tokens", "usd")),
    }
    requests = lines["2026-11-29", ALL, "requests"]
    assert (requests.budget, requests.left) == (20_000, 20_000 - 1_205)
    assert lines["2026-11-29", ALL, "tokens"].left is None
    # Spent before the budget was made smaller.
    assert lines["2026-11-29", "acme", "requests"].left == 0
    assert row_of(lines["2026-11-29", ALL, "usd"]) == {
        "period": "2026-11-29",
        "business": None,
        "unit": "usd",
        "budget": 20,
        "reserved": 0.012,
        "settled": 0.264,
        "orphaned": 0.008,
        "left": 19.716,
    }


@pytest.mark.parametrize("business", ["acme", *NASTY])
def test_the_table_fits_eighty_columns_and_strangers_are_text(business: str) -> None:
    spent = SPENT | {Account("2026-11-29", business): Spent(settled=Amount(700, 147_000, 154_000))}
    console = PlainConsole()
    console.width = 80
    console.file = io.StringIO()
    console.print(table_of(list(lines_of(PERIODS, BUDGETS, spent))))
    for line in console.file.getvalue().splitlines():
        assert len(line) <= 80
        assert not steers(line)


def test_periods_are_in_utc() -> None:
    assert periods_at(1_795_996_799) == ("2026-11-29", "2026-11")
    assert periods_at(1_795_996_800) == ("2026-11-30", "2026-11")


@pytest.mark.parametrize("period", ["today", "2026", "2026-11-29T00"])
def test_a_period_is_a_day_or_a_month(period: str) -> None:
    done = CliRunner().invoke(app, ["budget", "--period", period])
    assert done.exit_code == 2
    assert "expected a day or a month" in done.output


def test_a_wrong_file_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text("all:\n  week: {requests: 1}\n")
    with pytest.raises(ValueError, match=r"2: all\.week"):
        parse_budgets(path.read_text(), partitions=6)
