"""Accounts of the fallback's spending, and how reviews.spend writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from reviewmesh.leaving.amounts import Amount, Spent
from reviewmesh.leaving.budgets import ALL, PERIODS, PeriodName

FORMATS: Final[Mapping[PeriodName, str]] = {"day": "%Y-%m-%d", "month": "%Y-%m"}


class Account(NamedTuple):
    """What a call is paid from."""

    period: str
    """A day or a month in UTC."""
    business_id: str
    """ALL, or a business with a budget of its own."""

    def kind(self) -> PeriodName:
        return "day" if self.period.count("-") == FORMATS["day"].count("-") else "month"


def periods_at(seconds: float) -> tuple[str, ...]:
    """The day and the month of that moment."""
    now = datetime.fromtimestamp(seconds, UTC)
    return tuple(now.strftime(FORMATS[period]) for period in PERIODS)


def is_period(account: Account) -> bool:
    """Whether it is of a day or a month; others may have written to the topic."""
    form = FORMATS[account.kind()]
    try:
        began = datetime.strptime(account.period, form).replace(tzinfo=UTC)
        ends_in_time = began + timedelta(days=1) > began
    except (ValueError, OverflowError):
        return False
    return ends_in_time and began.strftime(form) == account.period


def account_and_spent(record: Mapping[str, Any]) -> tuple[Account, Spent]:
    """Of a decoded record of reviews.spend."""
    account = Account(record["period"], record["business_id"] or ALL)
    sums = (record[name] for name in ("reserved", "settled", "orphaned"))
    return account, Spent(
        *(Amount(one["requests"], one["tokens"], one["cost_micros"]) for one in sums)
    )
