"""What the fallback has spent of its budgets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.avro.codec import DecodeError
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.leaving.accounts import Account, account_and_spent, is_period
from reviewmesh.leaving.amounts import MICROS, NOTHING, Amount, Spent
from reviewmesh.leaving.budgets import ALL, NO_LIMIT, UNITS, Budgets
from reviewmesh.query.connection import Connection
from reviewmesh.query.reading import offsets, partitions_of, read_until
from reviewmesh_schemas.names import SPEND


@dataclass
class SpentByAccount:
    """The latest sums of each task, over all partitions."""

    by_task: dict[tuple[str, Account], Spent]
    skipped: int
    """Number of records that no enricher wrote."""

    def by_account(self) -> dict[Account, Spent]:
        """The sums of each account over all tasks."""
        found: dict[Account, Spent] = {}
        for (_, account), spent in self.by_task.items():
            found[account] = found.get(account, Spent()).plus(spent)
        return found

    def unanswered(self) -> dict[tuple[str, str, str | None], Amount]:
        """The cost of calls without a result, by task, day and business.

        The business is None for all businesses without a budget of their own.
        """
        found: dict[tuple[str, str, str | None], Amount] = {}
        for (task, account), spent in self.by_task.items():
            if account.kind() != "day" or spent.orphaned == NOTHING:
                continue
            others = (task, account.period, None)
            if account.business_id == ALL:
                found[others] = found.get(others, NOTHING).plus(spent.orphaned)
            else:
                # The sum of all businesses includes this one.
                found[others] = found.get(others, NOTHING).minus(spent.orphaned)
                found[task, account.period, account.business_id] = spent.orphaned
        return {key: amount for key, amount in found.items() if amount != NOTHING}


def spending(connection: Connection) -> SpentByAccount:
    """Read the latest sums of reviews.spend. Raises CannotReach."""
    places = partitions_of(connection, SPEND)
    starts, ends = offsets(connection, places, OFFSET_BEGINNING), offsets(connection, places)
    codec = connection.codec(SPEND)
    latest: dict[tuple[MeshPartition, bytes], Mapping[str, Any]] = {}
    found = SpentByAccount({}, 0)
    for record in read_until(connection, starts, ends):
        key = (MeshPartition(record.topic, record.partition), record.key or b"")
        if record.value is None:
            latest.pop(key, None)
            continue
        try:
            latest[key] = codec.decode_ours(record.value)
        except DecodeError:
            found.skipped += 1
    for content in latest.values():
        account, spent = account_and_spent(content)
        if not is_period(account):
            found.skipped += 1
            continue
        at = (content["task"], account)
        found.by_task[at] = found.by_task.get(at, Spent()).plus(spent)
    return found


@dataclass(frozen=True)
class BudgetLine:
    """One unit of one account. `budget` is None where nothing limits it."""

    period: str
    business_id: str
    unit: str
    budget: int | None
    reserved: int
    settled: int
    orphaned: int

    @property
    def left(self) -> int | None:
        if self.budget is None:
            return None
        return max(0, self.budget - self.reserved - self.settled - self.orphaned)


def lines_of(
    periods: Iterable[str], budgets: Budgets | None, spent: Mapping[Account, Spent]
) -> Iterator[BudgetLine]:
    """A line for each unit that is limited or was spent; the budget of all comes first."""
    businesses = {account.business_id for account in spent}
    if budgets is not None:
        businesses |= {ALL, *budgets.own()}
    for period in periods:
        for business_id in sorted(businesses):
            account = Account(period, business_id)
            limit = NO_LIMIT
            if budgets is not None:
                limit = budgets.limits.get((business_id, account.kind()), NO_LIMIT)
            of = spent.get(account, Spent())
            for unit, most, *amounts in zip(UNITS, limit.each(), *of, strict=True):
                if most is not None or any(amounts):
                    reserved, settled, orphaned = amounts
                    yield BudgetLine(period, business_id, unit, most, reserved, settled, orphaned)


def in_unit(unit: str, number: int) -> str:
    """Money is exact to the ten-thousandth of a US dollar, in whole ones from 10,000 on."""
    if unit != "usd":
        return f"{number:,}"
    dollars = Decimal(number) / MICROS
    return f"{dollars:,.4f}" if dollars < 10_000 else f"{dollars:,.0f}"
