"""The spending of a task's fallback: reserved before a call, settled by the result's transaction.

Each partition has an equal share of every budget, and the owner of the partition decides alone. A
transaction with a reservation also commits the partition's offset, so that a former owner is
fenced. A new owner reads the latest sums from the topic, and counts the open reservations of its
predecessor as orphaned in full. So reserved + settled + orphaned never exceeds a budget, even if a
process dies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from reviewmesh.clock import Clock
from reviewmesh.enrich.departures import Departure
from reviewmesh.enrich.items import number_of
from reviewmesh.kafka.record import Unit
from reviewmesh.leaving.accounts import FORMATS, Account, periods_at
from reviewmesh.leaving.amounts import NOTHING, Amount, Spent, sum_of
from reviewmesh.leaving.budgets import ALL, Budgets
from reviewmesh_protos.inference.v1 import inference_pb2

Change = dict[Account, Spent]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The reservation of a call that is not finished."""

    departure: Departure
    accounts: tuple[Account, ...]
    bound: Amount


@dataclass(slots=True)
class PartitionAccounts:
    """The accounts of one partition."""

    spent: dict[Account, Spent]
    """The committed sums."""
    reservations: dict[int, Reservation] = field(default_factory=dict)
    """By accepted offset. Their transactions are committed or in progress."""
    pending: dict[Account, Amount] = field(default_factory=dict)
    """Sums of reservations whose transactions are not committed yet."""

    def used(self, account: Account) -> Amount:
        spent = self.spent.get(account, Spent())
        return spent.total().plus(self.pending.get(account, NOTHING))


class Spending:
    """Used by the polling thread; `allows` from any thread."""

    def __init__(self, budgets: Budgets, clock: Clock) -> None:
        self._budgets = budgets
        self._clock = clock
        self._businesses = (ALL, *budgets.own())
        self._owned: dict[int, PartitionAccounts] = {}

    # -- the partitions ----------------------------------------------------------------------

    def open(self, partition: int, spent: dict[Account, Spent]) -> list[Unit]:
        """Take the sums of the topic. Returns a unit that orphans a predecessor's reservations."""
        self._owned[partition] = PartitionAccounts(spent)
        orphaned = {
            account: Spent(reserved=NOTHING.minus(of.reserved), orphaned=of.reserved)
            for account, of in spent.items()
            if of.reserved != NOTHING
        }
        return [self.unit_of(partition, orphaned)] if orphaned else []

    def close(self, partition: int) -> None:
        self._owned.pop(partition, None)

    def owned(self) -> tuple[int, ...]:
        return tuple(self._owned)

    @property
    def bound(self) -> Amount:
        """The most that one call may cost."""
        return self._budgets.call

    # -- calls -------------------------------------------------------------------------------

    def allows(self, partition: int, business_id: str | None) -> bool:
        """Whether the partition's share of every budget is enough for one more call."""
        own = self._owned.get(partition)
        return own is not None and not self._exceeded(own, self._accounts(business_id))

    def reserve(self, departure: Departure) -> Change | None:
        """The change of the sums that reserves a call.

        None if a budget is spent, or an earlier call for the review is not finished. After a change
        the caller calls `commit_reservation` when it is committed, or `cancel_reservation` when the
        broker rejects it.
        """
        item = departure.item
        own, accounts = self._owned[item.partition], self._accounts(item.business_id)
        # A review may ask again before its earlier reservation is released.
        if item.offset in own.reservations or self._exceeded(own, accounts):
            return None
        bound = self._budgets.call
        own.reservations[item.offset] = Reservation(departure, accounts, bound)
        for account in accounts:
            own.pending[account] = own.pending.get(account, NOTHING).plus(bound)
        return dict.fromkeys(accounts, Spent(reserved=bound))

    def commit_reservation(self, departure: Departure, change: Change) -> None:
        self._remove_pending(departure, change)
        self.apply(departure.item.partition, change)

    def cancel_reservation(self, departure: Departure, change: Change) -> None:
        self._remove_pending(departure, change)
        del self._owned[departure.item.partition].reservations[departure.item.offset]

    def settle(
        self, partition: int, offset: int, usage: inference_pb2.Usage | None
    ) -> Change | None:
        """The change in the transaction of a result; None if its call was not reserved."""
        reservation = self._finished(partition, offset)
        if reservation is None:
            return None
        return _ending(reservation, Spent(settled=charged(usage, reservation.bound)))

    def end_without_result(self, departure: Departure, amount: Amount | None) -> Change | None:
        """The change after a call without a result; None if it was not reserved.

        `amount`: what it cost, None if unknown.
        """
        own = self._owned.get(departure.item.partition)
        reservation = None if own is None else own.reservations.get(departure.item.offset)
        if reservation is None or reservation.departure is not departure:
            return None
        self._finished(departure.item.partition, departure.item.offset)
        return _ending(reservation, Spent(orphaned=reservation.bound if amount is None else amount))

    def orphan_result(self, partition: int, change: Change) -> Unit:
        """A unit that counts a call as one without a result: the broker rejects its result."""
        orphaned = {
            account: Spent(reserved=by.reserved, orphaned=by.settled)
            for account, by in change.items()
        }
        return self.unit_of(partition, orphaned)

    def unit_of(self, partition: int, change: Change) -> Unit:
        """A unit that changes the sums and finishes no record."""
        return Unit(partition, (), committed=partial(self.apply, partition, change), carries=change)

    def apply(self, partition: int, change: Change) -> None:
        """Apply a change that is committed."""
        spent = self._owned[partition].spent
        for account, by in change.items():
            spent[account] = spent.get(account, Spent()).plus(by)

    def is_recent(self, account: Account) -> bool:
        """Whether the account is of this month or the last: a clock may be set back."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        before = now.replace(day=1) - timedelta(days=1)
        return account.period[:7] >= before.strftime(FORMATS["month"])

    def sums_after(self, units: Sequence[Unit]) -> dict[tuple[int, Account], Spent]:
        """The changed sums after the transaction of these units, by partition and account."""
        sums: dict[tuple[int, Account], Spent] = {}
        for unit in units:
            change = unit.carries
            if not isinstance(change, dict):
                continue
            for account, by in change.items():
                at = (unit.partition, account)
                before = sums.get(at)
                if before is None:
                    before = self._owned[unit.partition].spent.get(account, Spent())
                sums[at] = before.plus(by)
        return sums

    def used(self) -> dict[Account, Amount]:
        """The spending of the current day and month, over all owned partitions."""
        accounts = [Account(period, of) for period in self._periods() for of in self._businesses]
        return {
            account: sum_of(own.used(account) for own in self._owned.values())
            for account in accounts
        }

    # -- helpers -----------------------------------------------------------------------------

    def _accounts(self, business_id: str | None) -> tuple[Account, ...]:
        # Each account once: a producer may write an empty business id, which equals ALL.
        businesses = [of for of in self._businesses if of in (ALL, business_id)]
        return tuple(
            Account(period, business) for period in self._periods() for business in businesses
        )

    def _periods(self) -> tuple[str, ...]:
        return periods_at(self._clock())

    def _exceeded(self, own: PartitionAccounts, accounts: Sequence[Account]) -> bool:
        for account in accounts:
            share = self._budgets.share(account.business_id, account.kind())
            if share.exceeded_by(own.used(account).plus(self._budgets.call)) is not None:
                return True
        return False

    def _finished(self, partition: int, offset: int) -> Reservation | None:
        own = self._owned.get(partition)
        return None if own is None else own.reservations.pop(offset, None)

    def _remove_pending(self, departure: Departure, change: Change) -> None:
        asked = self._owned[departure.item.partition].pending
        for account, by in change.items():
            asked[account] = asked[account].minus(by.reserved)
            if asked[account] == NOTHING:
                del asked[account]


def _ending(reservation: Reservation, by: Spent) -> Change:
    """The change when a reservation ends and is replaced by a settled or orphaned amount."""
    ended = by._replace(reserved=NOTHING.minus(reservation.bound))
    return dict.fromkeys(reservation.accounts, ended)


def charged(usage: inference_pb2.Usage | None, bound: Amount) -> Amount:
    """What a call cost; the bound if a provider was asked and the worker does not report it."""
    if usage is None:
        return bound
    if usage.provider_requests == 0:
        # The worker had the answer in its cache, or ran the model itself.
        return NOTHING
    requests, prompt, completion, micros = (
        number_of(usage, name)
        for name in ("provider_requests", "prompt_tokens", "completion_tokens", "cost_micros")
    )
    return Amount(
        requests=bound.requests if requests is None else requests,
        tokens=bound.tokens if prompt is None or completion is None else prompt + completion,
        micros=bound.micros if micros is None else micros,
    )
