"""Writes the fallback's spending in the loop's transactions, and reads it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from reviewmesh import metrics
from reviewmesh.avro.bounds import LARGEST
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.enrich.departures import Departure, Release, Reserve, Step
from reviewmesh.enrich.items import Answer
from reviewmesh.enrich.spending import Change, Spending, charged
from reviewmesh.kafka.readback import ReadBack
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Output, Record, Unavailable, Unit
from reviewmesh.leaving.accounts import Account, account_and_spent
from reviewmesh.leaving.amounts import NOTHING, Amount, Spent
from reviewmesh.leaving.budgets import ALL, UNITS, Budgets
from reviewmesh_schemas.names import DEPARTURES, SPEND

UPDATE_METRICS_EVERY_S = 1.0


class ReservationListener(Protocol):
    """Told whether the reservation of a text was committed."""

    def reservation_committed(self, departure: Departure) -> None: ...

    def reservation_refused(self, departure: Departure) -> None: ...

    def reservation_rejected(self, departure: Departure) -> None: ...


@dataclass(frozen=True, slots=True)
class SpendCodecs:
    spend: Codec
    departure: Codec


class LatestSums:
    """Reads the latest sums of one task from a partition of reviews.spend."""

    def __init__(
        self,
        task: str,
        partition: int,
        codec: Codec,
        reader: PartitionReader,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._prefix = f"{task}/{partition}/".encode()
        self._codec = codec
        self._log = log
        self._latest: dict[Account, Spent] = {}
        self._reading = ReadBack(reader, {(SPEND, partition): 0}, self._take)

    def read(self) -> dict[Account, Spent]:
        """Raises Unavailable while records remain, and RegistryUnavailable."""
        self._reading.go_on()
        return self._latest

    def _take(self, record: Record) -> None:
        key = record.key or b""
        if not key.startswith(self._prefix) or record.value is None:
            return
        try:
            account, spent = account_and_spent(self._codec.decode_ours(record.value))
        except DecodeError as error:
            # The earlier sums stay valid until the next record.
            self._log.warning(
                "ignoring a record of reviews.spend that the mesh did not write",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=str(error),
            )
            return
        self._latest[account] = spent


class Payments:
    """The payments of one task. Used by the polling thread; `read` by threads that load
    partitions."""

    def __init__(
        self,
        task: str,
        budgets: Budgets,
        codecs: SpendCodecs,
        reader: PartitionReader,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._task = task
        self._budgets = budgets
        self._codecs = codecs
        self._reader = reader
        self._clock = clock
        self._log = log
        self._readings: dict[int, LatestSums] = {}
        self._metrics_updated_at = float("-inf")
        self.spending = Spending(budgets, clock)

    # -- the partitions ----------------------------------------------------------------------

    def read(self, partition: int) -> dict[Account, Spent]:
        """The partition's sums. Raises Unavailable when they are not read to their end yet."""
        # Removed, because an abandoned thread of the same partition may still use it.
        reading = self._readings.pop(partition, None) or LatestSums(
            self._task, partition, self._codecs.spend, self._reader, self._log
        )
        try:
            self._codecs.spend.prepare()
            self._codecs.departure.prepare()
            found = reading.read()
        except (RegistryUnavailable, Unavailable) as error:
            self._readings[partition] = reading
            raise Unavailable(str(error)) from error
        return {account: spent for account, spent in found.items() if self._counts(account, spent)}

    def open(self, partition: int, spent: dict[Account, Spent]) -> list[Unit]:
        return self.spending.open(partition, spent)

    def close(self, partition: int) -> None:
        self.spending.close(partition)

    # -- calls -------------------------------------------------------------------------------

    def take(self, steps: Iterable[Step], listener: ReservationListener) -> list[Unit]:
        """The units that write the steps; `listener` learns of reservations."""
        units = []
        for step in steps:
            departure = step.departure
            if isinstance(step, Reserve):
                unit = self._reserving(departure, listener)
            elif isinstance(step, Release):
                unit = self._ending(departure, NOTHING)
            else:
                usage = step.usage
                amount = None if usage is None else charged(usage, self._budgets.call)
                unit = self._ending(departure, amount)
            if unit is not None:
                units.append(unit)
        return units

    def settle(self, partition: int, offset: int, answer: Answer) -> Change | None:
        """The change in the transaction of a result; None if its call was not reserved."""
        return self.spending.settle(partition, offset, answer.paid)

    def transaction_outputs(self, units: Sequence[Unit]) -> list[Output]:
        """The records of the sums that these units change."""
        return [
            self._sum(partition, account, spent)
            for (partition, account), spent in self.spending.sums_after(units).items()
        ]

    def update_metrics(self) -> None:
        now = self._clock()
        # The clock may have been set back.
        if 0 <= now - self._metrics_updated_at < UPDATE_METRICS_EVERY_S:
            return
        self._metrics_updated_at = now
        partitions = len(self.spending.owned())
        for account, amount in self.spending.used().items():
            share = self._budgets.share(account.business_id, account.kind())
            for unit, used, most in zip(UNITS, amount, share.each(), strict=True):
                labels = (self._task, account.business_id, account.kind(), unit)
                scale = 1e-6 if unit == "usd" else 1
                metrics.BUDGET_USED.labels(*labels).set(used * scale)
                if most is not None:
                    metrics.BUDGET_LIMIT.labels(*labels).set(most * scale * partitions)

    # -- helpers -----------------------------------------------------------------------------

    def _reserving(self, departure: Departure, listener: ReservationListener) -> Unit | None:
        change = self.spending.reserve(departure)
        if change is None:
            listener.reservation_refused(departure)
            return None
        return Unit(
            departure.item.partition,
            (),
            (self._record_of(departure),),
            committed=partial(self._reserved, departure, change, listener),
            refused=partial(self._refused, departure, change, listener),
            carries=change,
        )

    def _reserved(
        self, departure: Departure, change: Change, listener: ReservationListener
    ) -> None:
        self.spending.commit_reservation(departure, change)
        listener.reservation_committed(departure)

    def _refused(
        self, departure: Departure, change: Change, listener: ReservationListener, reason: str
    ) -> None:
        self.spending.cancel_reservation(departure, change)
        listener.reservation_rejected(departure)

    def _ending(self, departure: Departure, amount: Amount | None) -> Unit | None:
        change = self.spending.end_without_result(departure, amount)
        return None if change is None else self.spending.unit_of(departure.item.partition, change)

    def _record_of(self, departure: Departure) -> Output:
        item, bound = departure.item, self._budgets.call
        value = self._codecs.departure.encode(
            {
                "review_id": item.review_id,
                "business_id": item.business_id,
                "task": self._task,
                "accepted_partition": item.partition,
                "accepted_offset": item.offset,
                "region": departure.region,
                "reason": departure.reason,
                "digest": departure.digest,
                "characters": departure.characters,
                "masked": dict(departure.masked),
                "bound": _record(bound),
                "reserved_at": milliseconds(self._clock()),
            }
        )
        return Output(DEPARTURES, item.partition, item.review_id.encode(), value)

    def _sum(self, partition: int, account: Account, spent: Spent) -> Output:
        key = f"{self._task}/{partition}/{account.period}/{account.business_id}"
        value = self._codecs.spend.encode(
            {
                "task": self._task,
                "partition": partition,
                "period": account.period,
                "business_id": None if account.business_id == ALL else account.business_id,
                "reserved": _record(spent.reserved),
                "settled": _record(spent.settled),
                "orphaned": _record(spent.orphaned),
                "changed_at": milliseconds(self._clock()),
            }
        )
        return Output(SPEND, partition, key.encode(), value)

    def _counts(self, account: Account, spent: Spent) -> bool:
        """Whether the sum is still needed: recent, or with open reservations."""
        return spent.reserved != NOTHING or self.spending.is_recent(account)


def _record(amount: Amount) -> dict[str, int]:
    """The amount as a record. Limited, because a worker may report numbers beyond a long."""
    requests, tokens, micros = (min(number, LARGEST) for number in amount)
    return {"requests": requests, "tokens": tokens, "cost_micros": micros}
