"""The fallback's spending in transactions: reads the sums back, reserves, settles, writes them."""

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
from reviewmesh.enrich.departures import Asks, Departure, GivesBack, Step
from reviewmesh.enrich.items import Answer
from reviewmesh.enrich.spending import Change, Spending, taken
from reviewmesh.kafka.readback import ReadBack
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Output, Record, Unavailable, Unit
from reviewmesh.leaving.accounts import Account, account_and_spent
from reviewmesh.leaving.amounts import NOTHING, Amount, Spent
from reviewmesh.leaving.budgets import ALL, UNITS, Budgets
from reviewmesh_schemas.names import DEPARTURES, SPEND

MEASURE_EVERY_S = 1.0


class Gate(Protocol):
    """Who is told whether a text may leave."""

    def let_leave(self, departure: Departure) -> None: ...

    def refuse(self, departure: Departure) -> None: ...

    def hold_back(self, departure: Departure) -> None: ...


@dataclass(frozen=True, slots=True)
class SpendCodecs:
    spend: Codec
    departure: Codec


class LatestSums:
    """The latest sums of one task on a partition of reviews.spend."""

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
            # The sums before it hold until the next ones.
            self._log.warning(
                "not sums of the mesh's",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=str(error),
            )
            return
        self._latest[account] = spent


class Payments:
    """Of one task. Used by the polling thread; `read` in a thread that opens a partition."""

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
        self._measured_at = float("-inf")
        self.spending = Spending(budgets, clock)

    # -- the partitions ----------------------------------------------------------------------

    def read(self, partition: int) -> dict[Account, Spent]:
        """The partition's sums. Raises Unavailable to be called again."""
        # Taken out: a thread whose partition was reopened meanwhile may still read.
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

    def take(self, steps: Iterable[Step], gate: Gate) -> list[Unit]:
        """The units that the steps ask for."""
        units = []
        for step in steps:
            departure = step.departure
            if isinstance(step, Asks):
                unit = self._reserving(departure, gate)
            elif isinstance(step, GivesBack):
                unit = self._ending(departure, NOTHING)
            else:
                usage = step.usage
                amount = None if usage is None else taken(usage, self._budgets.call)
                unit = self._ending(departure, amount)
            if unit is not None:
                units.append(unit)
        return units

    def settle(self, partition: int, offset: int, answer: Answer) -> Change | None:
        """What the result's transaction changes; None where nothing is reserved for it."""
        return self.spending.settled(partition, offset, answer.paid)

    def transaction_outputs(self, units: Sequence[Unit]) -> list[Output]:
        """The sums as they are with these units."""
        return [
            self._sum(partition, account, spent)
            for (partition, account), spent in self.spending.sums(units).items()
        ]

    def measure(self) -> None:
        now = self._clock()
        # A clock may be set back.
        if 0 <= now - self._measured_at < MEASURE_EVERY_S:
            return
        self._measured_at = now
        partitions = len(self.spending.owned())
        for account, amount in self.spending.used().items():
            share = self._budgets.share(account.business_id, account.kind())
            for unit, used, most in zip(UNITS, amount, share.each(), strict=True):
                labels = (self._task, account.business_id, account.kind(), unit)
                scale = 1e-6 if unit == "usd" else 1
                metrics.BUDGET_USED.labels(*labels).set(used * scale)
                if most is not None:
                    metrics.BUDGET_LIMIT.labels(*labels).set(most * scale * partitions)

    # -- small things ------------------------------------------------------------------------

    def _reserving(self, departure: Departure, gate: Gate) -> Unit | None:
        change = self.spending.reserve(departure)
        if change is None:
            gate.refuse(departure)
            return None
        return Unit(
            departure.item.partition,
            (),
            (self._record_of(departure),),
            committed=partial(self._reserved, departure, change, gate),
            refused=partial(self._refused, departure, change, gate),
            carries=change,
        )

    def _reserved(self, departure: Departure, change: Change, gate: Gate) -> None:
        self.spending.reserved(departure, change)
        gate.let_leave(departure)

    def _refused(self, departure: Departure, change: Change, gate: Gate, reason: str) -> None:
        self.spending.not_reserved(departure, change)
        gate.hold_back(departure)

    def _ending(self, departure: Departure, amount: Amount | None) -> Unit | None:
        change = self.spending.ended(departure, amount)
        return None if change is None else self.spending.changing(departure.item.partition, change)

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
        """Older periods are of no use, except to say what was reserved and never settled."""
        return spent.reserved != NOTHING or self.spending.is_recent(account)


def _record(amount: Amount) -> dict[str, int]:
    """Of no larger numbers than every reader knows: a worker may tell anything."""
    requests, tokens, micros = (min(number, LARGEST) for number in amount)
    return {"requests": requests, "tokens": tokens, "cost_micros": micros}
