"""What a task's fallback spends: reserved before a call, settled by the result's transaction.

Each partition has its part of every budget, and its owner decides alone. A transaction that
reserves also commits the partition's offset, changed or not, so that a former owner is fenced. The
sums are the state: a new owner reads the latest, and counts what its predecessor had reserved as
orphaned, in full. So reserved + settled + orphaned never exceeds a budget, whenever a process ends.
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
class Claim:
    """A reservation of a call that is not finished."""

    departure: Departure
    accounts: tuple[Account, ...]
    bound: Amount


@dataclass(slots=True)
class Owned:
    """The accounts of one partition."""

    spent: dict[Account, Spent]
    """As it is committed."""
    claims: dict[int, Claim] = field(default_factory=dict)
    """By accepted offset; in a transaction, or committed."""
    asked: dict[Account, Amount] = field(default_factory=dict)
    """Of claims whose transaction is not committed yet."""

    def used(self, account: Account) -> Amount:
        spent = self.spent.get(account, Spent())
        return spent.total().plus(self.asked.get(account, NOTHING))


class Spending:
    """Used by the polling thread; `left_for` from any."""

    def __init__(self, budgets: Budgets, clock: Clock) -> None:
        self._budgets = budgets
        self._clock = clock
        self._businesses = (ALL, *budgets.own())
        self._owned: dict[int, Owned] = {}

    # -- the partitions ----------------------------------------------------------------------

    def open(self, partition: int, spent: dict[Account, Spent]) -> list[Unit]:
        """`spent` as the topic has it. What a predecessor had reserved is orphaned."""
        self._owned[partition] = Owned(spent)
        orphaned = {
            account: Spent(reserved=NOTHING.minus(of.reserved), orphaned=of.reserved)
            for account, of in spent.items()
            if of.reserved != NOTHING
        }
        return [self.changing(partition, orphaned)] if orphaned else []

    def close(self, partition: int) -> None:
        self._owned.pop(partition, None)

    def owned(self) -> tuple[int, ...]:
        return tuple(self._owned)

    @property
    def bound(self) -> Amount:
        """The most that one call may take."""
        return self._budgets.call

    # -- calls -------------------------------------------------------------------------------

    def left_for(self, partition: int, business_id: str | None) -> bool:
        """Whether the partition's part of every budget is enough for one more call."""
        owned = self._owned.get(partition)
        return owned is not None and not self._exceeded(owned, self._accounts(business_id))

    def reserve(self, departure: Departure) -> Change | None:
        """What the transaction that reserves it changes.

        None where a budget is spent, or an earlier call for the review is not finished.

        `reserved` is to be called once that is committed, `not_reserved` if it never will be.
        """
        item = departure.item
        owned, accounts = self._owned[item.partition], self._accounts(item.business_id)
        # A review may ask again before it is known that it gave an earlier reservation back.
        if item.offset in owned.claims or self._exceeded(owned, accounts):
            return None
        bound = self._budgets.call
        owned.claims[item.offset] = Claim(departure, accounts, bound)
        for account in accounts:
            owned.asked[account] = owned.asked.get(account, NOTHING).plus(bound)
        return dict.fromkeys(accounts, Spent(reserved=bound))

    def reserved(self, departure: Departure, change: Change) -> None:
        self._unask(departure, change)
        self.apply(departure.item.partition, change)

    def not_reserved(self, departure: Departure, change: Change) -> None:
        self._unask(departure, change)
        del self._owned[departure.item.partition].claims[departure.item.offset]

    def settled(
        self, partition: int, offset: int, usage: inference_pb2.Usage | None
    ) -> Change | None:
        """What the result's transaction changes; None where nothing is reserved for it."""
        claim = self._finished(partition, offset)
        if claim is None:
            return None
        return _change(claim, Spent(settled=taken(usage, claim.bound)))

    def ended(self, departure: Departure, amount: Amount | None) -> Change | None:
        """The call has no result; `amount` is None where nobody knows what it took."""
        owned = self._owned.get(departure.item.partition)
        claim = None if owned is None else owned.claims.get(departure.item.offset)
        if claim is None or claim.departure is not departure:
            return None
        self._finished(departure.item.partition, departure.item.offset)
        return _change(claim, Spent(orphaned=claim.bound if amount is None else amount))

    def in_vain(self, partition: int, change: Change) -> Unit:
        """What was to be settled by a result that is refused counts as a call without one."""
        orphaned = {
            account: Spent(reserved=by.reserved, orphaned=by.settled)
            for account, by in change.items()
        }
        return self.changing(partition, orphaned)

    def changing(self, partition: int, change: Change) -> Unit:
        """Changes the sums, and nothing else."""
        return Unit(partition, (), committed=partial(self.apply, partition, change), carries=change)

    def apply(self, partition: int, change: Change) -> None:
        """It is committed."""
        spent = self._owned[partition].spent
        for account, by in change.items():
            spent[account] = spent.get(account, Spent()).plus(by)

    def is_recent(self, account: Account) -> bool:
        """Of this month or the one before: a clock that is set back may return to it."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        before = now.replace(day=1) - timedelta(days=1)
        return account.period[:7] >= before.strftime(FORMATS["month"])

    def sums(self, units: Sequence[Unit]) -> dict[tuple[int, Account], Spent]:
        """As they are once the transaction of these units is committed."""
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
        """Of the running periods, over all partitions owned."""
        accounts = [Account(period, of) for period in self._periods() for of in self._businesses]
        return {
            account: sum_of(owned.used(account) for owned in self._owned.values())
            for account in accounts
        }

    # -- small things ------------------------------------------------------------------------

    def _accounts(self, business_id: str | None) -> tuple[Account, ...]:
        # Each once: a producer may write an empty business, which ALL is, too.
        businesses = [of for of in self._businesses if of in (ALL, business_id)]
        return tuple(
            Account(period, business) for period in self._periods() for business in businesses
        )

    def _periods(self) -> tuple[str, ...]:
        return periods_at(self._clock())

    def _exceeded(self, owned: Owned, accounts: Sequence[Account]) -> bool:
        for account in accounts:
            share = self._budgets.share(account.business_id, account.kind())
            if share.exceeded_by(owned.used(account).plus(self._budgets.call)) is not None:
                return True
        return False

    def _finished(self, partition: int, offset: int) -> Claim | None:
        owned = self._owned.get(partition)
        return None if owned is None else owned.claims.pop(offset, None)

    def _unask(self, departure: Departure, change: Change) -> None:
        asked = self._owned[departure.item.partition].asked
        for account, by in change.items():
            asked[account] = asked[account].minus(by.reserved)
            if asked[account] == NOTHING:
                del asked[account]


def _change(claim: Claim, by: Spent) -> Change:
    """Of a reservation that ends."""
    ended = by._replace(reserved=NOTHING.minus(claim.bound))
    return dict.fromkeys(claim.accounts, ended)


def taken(usage: inference_pb2.Usage | None, bound: Amount) -> Amount:
    """What a call took; the bound where a provider was asked and nobody tells how much it was."""
    if usage is None:
        return bound
    if usage.provider_requests == 0:
        # The worker knew the answer, or ran the model itself and tells of no requests.
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
