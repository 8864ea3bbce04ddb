"""The screen of budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewmesh.clock import wall_clock
from reviewmesh.console.budgets import BUSINESSES_A_PERIOD, SpentSoFar, shown_lines
from reviewmesh.leaving.accounts import Account, periods_at
from reviewmesh.leaving.amounts import Amount, Spent
from reviewmesh.leaving.budgets import ALL, parse_budgets
from reviewmesh.query.budgets import SpentByAccount
from tests.unit.console.page import kept, page, text_of

HOSTILE = "<b>acme</b>\u202e"
BUDGETS = parse_budgets(
    """\
tasks: [topic]
call: {tokens: 6000, usd: 0.004}
all:
  day: {requests: 1200, usd: 20}
businesses:
  acme: {day: {requests: 600}}
""",
    partitions=6,
)


def spent(period: str, business: str, **amounts: Amount) -> SpentByAccount:
    return SpentByAccount({("topic", Account(period, business)): Spent(**amounts)}, skipped=0)


def text(folder: Path, spending: SpentSoFar, query: str = "") -> str:
    answer = page(folder, budgets=kept(spending)).get(f"/budgets{query}")
    assert answer.status_code == 200
    return text_of(answer.text)


def test_today_and_this_month_show_what_is_left(tmp_path: Path) -> None:
    day, month = periods_at(wall_clock())
    found = spent(day, ALL, settled=Amount(1_000, 5, 2_000_000), reserved=Amount(2, 0, 0))
    said = text(tmp_path, SpentSoFar(found, BUDGETS, ""))
    assert f"Today ({day}, in UTC)" in said and f"This month ({month}, in UTC)" in said
    assert "all requests 1,200 2 1,000 0 198 84 %, nearly spent" in said
    assert "all US dollars 20.0000 0.0000 2.0000 0.0000 18.0000 10 %" in said
    assert "all tokens no limit 0 5 0 no limit" in said
    assert "acme requests 600 0 0 0 600 0 %" in said


def test_an_earlier_period_is_chosen_by_the_address(tmp_path: Path) -> None:
    found = spent("2026-10", ALL, settled=Amount(7, 0, 0))
    said = text(tmp_path, SpentSoFar(found, None, ""), "?period=2026-10")
    assert "2026-10 (in UTC)" in said and "all requests no limit 0 7 0 no limit" in said
    assert "Today" not in said


@pytest.mark.parametrize("period", ["soon", "2026-13", "<b>x</b>", "2026-11-31", "1" * 4_000])
def test_a_wrong_period_is_refused_in_words(tmp_path: Path, period: str) -> None:
    spending = SpentSoFar(SpentByAccount({}, 0), BUDGETS, "")
    answer = page(tmp_path, budgets=kept(spending)).get("/budgets", params={"period": period})
    assert "Expected a day or a month such as 2026-11-29" in text_of(answer.text)
    assert "<b>x</b>" not in answer.text


def test_without_a_budget_it_says_what_to_do(tmp_path: Path) -> None:
    said = text(tmp_path, SpentSoFar(SpentByAccount({}, 3), None, ""))
    assert "REVIEWMESH_BUDGETS" in said and "nothing was spent" in said
    assert "3 records were skipped" in said


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    spending = SpentSoFar(SpentByAccount({}, 0), None, "REVIEWMESH_BUDGETS: budgets.yaml:3: wrong")
    assert "budgets.yaml:3: wrong" in text(tmp_path, spending)


def test_names_of_businesses_are_text(tmp_path: Path) -> None:
    day, _ = periods_at(wall_clock())
    found = spent(day, HOSTILE, settled=Amount(1, 0, 0))
    answer = page(tmp_path, budgets=kept(SpentSoFar(found, None, ""))).get("/budgets")
    assert "<b>acme" not in answer.text and "\u202e" not in answer.text


def test_a_budget_of_nothing_is_spent_and_pages_are_bounded() -> None:
    none = parse_budgets("all: {day: {requests: 0}}", partitions=6)
    [line] = shown_lines("2026-11-29", none, {})
    assert line.is_spent
    many = {
        Account("2026-11-29", f"b-{number}"): Spent(settled=Amount(1, 0, 0))
        for number in range(BUSINESSES_A_PERIOD + 50)
    }
    assert len(shown_lines("2026-11-29", None, many)) == BUSINESSES_A_PERIOD


def test_a_mesh_that_is_away_is_named(tmp_path: Path) -> None:
    said = text_of(page(tmp_path).get("/budgets").text)
    assert "did not answer" in said and "nothing was spent" not in said
