"""What tokens cost, by date."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from reviewmesh_worker.engines.openai.prices import Price, Prices

OPENAI = "https://api.openai.com/v1"
DATED = "gpt-4.1-mini-2025-04-14"


def price(model: str, since: str, dollars: str) -> Price:
    return Price.model_validate(
        {
            "model": model,
            "from": since,
            "input_per_million": dollars,
            "output_per_million": dollars,
        }
    )


@pytest.mark.parametrize(
    ("day", "micros"),
    [("2026-01-31", None), ("2026-02-01", 3), ("2026-02-28", 3), ("2026-03-01", 5)],
)
def test_an_own_price_holds_from_its_date_on(day: str, micros: int | None) -> None:
    own = [price("m", "2026-03-01", "5"), price("m", "2026-02-01", "3"), price("x", day, "9")]
    prices = Prices("m", "http://127.0.0.1:8000/v1", own)
    at = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    assert prices.micros(1, 0, 0, at) == micros


def test_an_own_price_goes_before_the_table_and_the_table_before_nothing() -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    # 0.4 dollars for a million tokens of input, says genai-prices.
    assert Prices(DATED, OPENAI, []).micros(1000, 0, 0, at) == 400
    assert Prices(DATED, OPENAI, [price(DATED, "2026-01-01", "7")]).micros(1000, 0, 0, at) == 7000
    assert Prices(DATED, OPENAI, [price(DATED, "2027-01-01", "7")]).micros(1000, 0, 0, at) == 400


def test_what_is_cached_costs_less_where_the_table_says_so_and_a_part_counts_as_one() -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    prices = Prices(DATED, OPENAI, [])
    whole, cached = prices.micros(1000, 0, 0, at), prices.micros(1000, 1000, 0, at)
    assert whole is not None and cached is not None and cached < whole
    assert prices.micros(1, 0, 0, at) == 1


def test_without_a_price_for_cached_input_it_costs_what_other_input_does() -> None:
    own = price("m", "2026-01-01", "2")
    assert own.micros(10, 4, 0) == Decimal(20)
