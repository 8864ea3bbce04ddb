"""The fallback's sums, written and read back: odd numbers, odd moments."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.departures import Departure, Reserve
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.payments import Payments, SpendCodecs
from reviewmesh.enrich.routes import FALLBACK
from reviewmesh.enrich.spending import Change, charged
from reviewmesh.enrich.stage import EnrichContract, EnrichStage
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Output, Record, Unit
from reviewmesh.leaving.accounts import Account
from reviewmesh.leaving.amounts import NOTHING, Amount, Spent
from reviewmesh.leaving.budgets import ALL, parse_budgets
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.settings import KafkaSettings, Settings
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_schemas.names import ACCEPTED, SPEND
from tests.no_campaigns import no_campaigns
from tests.unit.enrich.test_stage import NoLedgers

AT = 0
NOON = 1_795_953_600.0
DAY = Account("2026-11-29", ALL)
BUDGETS = parse_budgets("tasks: [topic]\nall:\n  day: {requests: 100}\n", 1)
MOST = 2**53 - 1


class NoRegistry(SchemaRegistry):
    def __init__(self) -> None:
        super().__init__("http://registry.invalid")

    def id_of(self, subject: str, schema: Any) -> int:
        return 1


class Log(PartitionReader):
    """reviews.spend in memory. `at_record` may hold the reading thread up."""

    def __init__(self) -> None:
        super().__init__(Settings(kafka=KafkaSettings(bootstrap_servers="broker.invalid:9092")))
        self.records: list[Record] = []

    def append(self, outputs: list[Output]) -> None:
        for output in outputs:
            at = len(self.records)
            self.records.append(Record(SPEND, AT, at, key=output.key, value=output.value))

    def at_record(self, record: Record) -> None:
        pass

    def read_from(self, topic: str, partition: int, start: int) -> Iterator[Record]:
        for record in self.records[start:]:
            self.at_record(record)
            yield record


class World:
    def __init__(self) -> None:
        self.log = Log()
        self.now = NOON
        self.payments = self.owner()

    def owner(self) -> Payments:
        registry = NoRegistry()
        return Payments(
            "topic",
            BUDGETS,
            SpendCodecs(
                Codec(registry, "spend", "spend"), Codec(registry, "departure", "departure")
            ),
            self.log,
            lambda: self.now,
            structlog.stdlib.get_logger(),
        )

    def commit(self, change: Change) -> None:
        unit = self.payments.spending.unit_of(AT, change)
        self.log.append(self.payments.transaction_outputs([unit]))
        self.committed(unit)

    def committed(self, unit: Unit) -> None:
        assert unit.committed is not None
        unit.committed()


@pytest.fixture
def world() -> World:
    made = World()
    made.payments.open(AT, {})
    return made


def test_a_worker_that_tells_the_largest_numbers_again_and_again_ends_nothing(
    world: World,
) -> None:
    told = inference_pb2.Usage(
        provider_requests=1, prompt_tokens=MOST, completion_tokens=MOST, cost_micros=MOST
    )
    for _ in range(520):
        world.commit({DAY: Spent(settled=charged(told, BUDGETS.call))})
    found = world.owner().read(AT)[DAY].settled
    assert found == Amount(520, MOST, MOST)


def test_loads_of_the_same_partition_at_once_do_not_disturb_each_other(world: World) -> None:
    for _ in range(4):
        world.commit({DAY: Spent(settled=Amount(1, 0, 0))})
    owner = world.owner()
    slow = threading.Event()
    goes_on = threading.Event()

    def hold_up(record: Record) -> None:
        if threading.current_thread() is abandoned and record.offset == 1:
            slow.set()
            assert goes_on.wait(10)

    world.log.at_record = hold_up  # type: ignore[method-assign]
    told: list[Any] = []
    abandoned = threading.Thread(target=lambda: told.append(owner.read(AT)), daemon=True)
    abandoned.start()
    assert slow.wait(10)
    # The partition was reopened meanwhile.
    found = owner.read(AT)
    goes_on.set()
    abandoned.join(10)
    assert found == told[0] == {DAY: Spent(settled=Amount(4, 0, 0))}


def test_a_clock_that_is_set_back_does_not_stop_the_metrics(world: World) -> None:
    labels = {"task": "topic", "business": "", "period": "day", "unit": "requests"}
    world.payments.update_metrics()
    world.now -= 3_600
    world.commit({DAY: Spent(settled=Amount(7, 0, 0), reserved=NOTHING)})
    world.payments.update_metrics()
    assert REGISTRY.get_sample_value("reviewmesh_budget_used", labels) == 7


def test_what_a_refused_result_took_is_orphaned(world: World) -> None:
    registry = NoRegistry()
    accepted = Codec(registry, "accepted", "accepted_review")
    # Not started: the test answers.
    client = InferenceClient("topic", ["127.0.0.1:1"])
    stage = EnrichStage(
        "topic",
        EnrichContract(accepted, Codec(registry, "topic", "topic_result"), max_result_bytes=10_000),
        DeadLetters(Codec(registry, "dead-letter", "dead_letter"), lambda: NOON),
        client,
        no_campaigns(registry, "", "topic"),
        lambda: NOON,
        world.payments,
    )
    stage.open(AT, NoLedgers(), {})
    review = accepted.encode({"review_id": "r", "content_hash": "h", "accepted_at": 0})
    stage.receive(Record(ACCEPTED, AT, 7, key=b"r", value=review, timestamp_ms=int(NOON * 1000)))
    [item] = stage._to_submit
    client._steps.append(Reserve(Departure.of(item, "eu", "LATE", "", Counter())))
    [reserving] = stage.poll()
    world.log.append(list(stage.transaction_outputs([reserving])))
    world.committed(reserving)
    paid = inference_pb2.Usage(provider_requests=1)
    answer = Answer(
        None, "not today", attempts=1, lineage=None, usage=paid, paid=paid, route=FALLBACK
    )
    client._done.append((item, answer))
    [settling] = stage.poll()
    assert settling.finished == ((ACCEPTED, 7),) and settling.refused is not None
    settling.refused("the topic takes no record of this size")
    [orphaning] = stage.poll()
    world.log.append(list(stage.transaction_outputs([orphaning])))
    assert world.owner().read(AT)[DAY] == Spent(orphaned=Amount(1, 0, 0))


class HoldReason:
    """A gate that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Departure]] = []

    def reservation_committed(self, departure: Departure) -> None:
        self.told.append(("leaves", departure))

    def reservation_refused(self, departure: Departure) -> None:
        self.told.append(("unpaid", departure))

    def reservation_rejected(self, departure: Departure) -> None:
        self.told.append(("held back", departure))


def test_a_text_whose_departure_is_refused_is_held_back_and_pays_nothing(world: World) -> None:
    listener, item = HoldReason(), WorkItem("t", AT, 7, "text", "en", None, None, NOON)
    asks = Reserve(Departure.of(item, "eu", "LATE", "text", Counter()))
    [reserving] = world.payments.take([asks], listener)
    assert reserving.refused is not None
    reserving.refused("the topic takes no record of this size")
    assert listener.told == [("held back", asks.departure)]
    assert set(world.payments.spending.used().values()) == {NOTHING}
