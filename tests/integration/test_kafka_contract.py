"""What the mesh relies on of its Kafka client: asked of the scripted one and of the real one.

The unit tests of the loop stand on `tests/scripted_kafka.py`; this is what that stands on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from reviewmesh.kafka import clients
from reviewmesh.kafka.offsets import start_and_end
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.settings import KafkaSettings, Settings
from tests.broker import TestStack, wait_until
from tests.scripted_kafka import Cluster

SOON_S = 40
PARTITIONS = 2


class Kafka:
    """Clients with the mesh's own options, of either make."""

    def __init__(self, prefix: str, stack: TestStack | None) -> None:
        self.prefix = prefix
        self.topic = f"{prefix}topic"
        servers = "broker.invalid:9092" if stack is None else stack.bootstrap_servers
        self.scripted = Cluster() if stack is None else None
        self.settings = KafkaSettings(bootstrap_servers=servers)
        self.errors: list[KafkaError] = []
        self._open: list[Any] = []
        # One for all requests: what it was asked is lost with it.
        self.admin: Any = (
            AdminClient({**self.settings.as_librdkafka()})
            if self.scripted is None
            else self.scripted.admin({})
        )

    def create(self, topic: str) -> None:
        if self.scripted is not None:
            self.scripted.create(topic, PARTITIONS)
            return
        self.admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(SOON_S)
        wait_until(
            lambda: topic in self.admin.list_topics(timeout=10).topics, SOON_S, "it is there"
        )

    def delete_records(self, before: int) -> None:
        if self.scripted is not None:
            self.scripted.delete_records(self.topic, 0, before)
            return
        [done] = self.admin.delete_records([self.at(before)]).values()
        done.result(SOON_S)

    def consumer(self, slot: str = "", isolation: str = "read_committed") -> Any:
        """A member of a group where it has a slot."""
        settings = Settings(kafka=self.settings, slot=slot or "none")
        options: dict[str, Any] = {
            **clients.consumer_options(settings, f"{self.prefix}group"),
            "isolation.level": isolation,
            "error_cb": self.errors.append,
        }
        if not slot:
            del options["group.instance.id"]
        make: Any = Consumer if self.scripted is None else self.scripted.consumer
        return self._opened(make(options))

    def producer(self, slot: str = "0") -> Any:
        settings = Settings(kafka=self.settings, slot=slot)
        options: dict[str, Any] = {
            **clients.producer_options(settings, f"{self.prefix}group"),
            "error_cb": self.errors.append,
            "on_delivery": lambda error, message: None,
        }
        make: Any = Producer if self.scripted is None else self.scripted.producer
        producer = make(options)
        producer.init_transactions(SOON_S)
        return producer

    def at(self, offset: int, partition: int = 0, metadata: str = "") -> TopicPartition:
        return TopicPartition(self.topic, partition, offset, metadata)

    @property
    def partition(self) -> BrokerPartition:
        return BrokerPartition(self.topic, 0)

    def write(self, producer: Any, *values: bytes, partition: int = 0) -> None:
        """One committed transaction."""
        producer.begin_transaction()
        self.produce(producer, *values, partition=partition)
        producer.commit_transaction(SOON_S)

    def produce(self, producer: Any, *values: bytes, partition: int = 0) -> None:
        for value in values:
            producer.produce(self.topic, value=value, key=b"key", partition=partition)
        producer.flush(SOON_S)

    def join(self, slot: str, **callbacks: Any) -> tuple[Any, list[int]]:
        """A member, and the partitions that it holds, as its polls tell."""
        consumer, held = self.consumer(slot), list[int]()

        def assigned(consumer: Any, partitions: list[TopicPartition]) -> None:
            consumer.incremental_assign(partitions)
            held.extend(item.partition for item in partitions)

        def revoked(consumer: Any, partitions: list[TopicPartition]) -> None:
            consumer.incremental_unassign(partitions)
            for item in partitions:
                held.remove(item.partition)

        named = {"on_assign": assigned, "on_revoke": revoked, "on_lost": revoked, **callbacks}
        chosen = {name: call for name, call in named.items() if call is not None}
        consumer.subscribe([self.topic], **chosen)
        return consumer, held

    def close(self) -> None:
        for consumer in self._open:
            consumer.close()

    def _opened(self, consumer: Any) -> Any:
        self._open.append(consumer)
        return consumer


@pytest.fixture(params=["scripted", "real"])
def kafka(request: pytest.FixtureRequest, prefix: str) -> Iterator[Kafka]:
    stack = None if request.param == "scripted" else request.getfixturevalue("stack")
    kafka = Kafka(prefix, stack)
    kafka.create(kafka.topic)
    yield kafka
    kafka.close()


Seen = list[tuple[int, bytes | None]]


def read(consumer: Any, is_over: Callable[[Seen], bool], *others: Any) -> Seen:
    """Offsets and values until that holds; an end of the partition has no value."""
    seen: Seen = []
    deadline = time.monotonic() + SOON_S
    while not is_over(seen):
        assert time.monotonic() < deadline, f"so far {seen}"
        for message in consumer.consume(100, 0.05):
            error = message.error()
            assert error is None or error.code() == KafkaError._PARTITION_EOF, error
            seen.append((message.offset(), None if error is not None else message.value()))
        for other in others:
            other.consume(100, 0.05)
    return seen


def to_end(offset: int) -> Callable[[Seen], bool]:
    return lambda seen: (offset, None) in seen


def code_of(call: Callable[[], object]) -> KafkaError:
    with pytest.raises(KafkaException) as raised:
        call()
    error: KafkaError = raised.value.args[0]
    return error


# -- reading ---------------------------------------------------------------------------------


def test_markers_and_aborted_records_are_gaps_and_the_end_is_behind_them(kafka: Kafka) -> None:
    producer = kafka.producer()
    kafka.write(producer, b"a", b"b")
    producer.begin_transaction()
    kafka.produce(producer, b"aborted")
    producer.abort_transaction(SOON_S)
    kafka.write(producer, b"c")
    consumer = kafka.consumer()
    consumer.assign([kafka.at(0)])
    seen = read(consumer, to_end(7))
    assert [item for item in seen if item[1] is not None] == [(0, b"a"), (1, b"b"), (5, b"c")]
    assert seen[-1] == (7, None)


def test_an_open_transaction_ends_what_a_reader_of_committed_records_sees(kafka: Kafka) -> None:
    producer = kafka.producer()
    kafka.write(producer, b"a")
    producer.begin_transaction()
    kafka.produce(producer, b"open")
    committed, everything = kafka.consumer(), kafka.consumer(isolation="read_uncommitted")
    assert start_and_end(committed, kafka.partition, SOON_S) == (0, 2)
    assert start_and_end(everything, kafka.partition, SOON_S) == (0, 3)
    committed.assign([kafka.at(0)])
    assert read(committed, to_end(2)) == [(0, b"a"), (2, None)]
    everything.assign([kafka.at(0)])
    assert (2, b"open") in read(everything, to_end(3))
    producer.commit_transaction(SOON_S)
    assert read(committed, to_end(4)) == [(2, b"open"), (4, None)]


def test_a_pause_outlasts_being_unassigned_and_assigned_again(kafka: Kafka) -> None:
    producer = kafka.producer()
    kafka.write(producer, b"a")
    consumer = kafka.consumer()
    consumer.assign([kafka.at(0), kafka.at(0, 1)])
    read(consumer, to_end(2))
    consumer.pause([kafka.at(0)])
    consumer.incremental_unassign([kafka.at(0)])
    consumer.incremental_assign([kafka.at(0)])
    kafka.write(producer, b"other", partition=1)
    assert {value for _, value in read(consumer, to_end(2))} == {b"other", None}
    consumer.resume([kafka.at(0)])
    assert (0, b"a") in read(consumer, to_end(2))


def test_what_is_assigned_is_not_assigned_again_and_what_is_not_is_not_taken_away(
    kafka: Kafka,
) -> None:
    consumer = kafka.consumer()
    consumer.assign([kafka.at(0)])
    again = code_of(lambda: consumer.incremental_assign([kafka.at(0)]))
    assert again.code() == KafkaError._CONFLICT
    never = code_of(lambda: consumer.incremental_unassign([kafka.at(0, 1)]))
    assert never.code() == KafkaError._INVALID_ARG


def test_a_reader_goes_on_where_the_log_starts_now(kafka: Kafka) -> None:
    kafka.write(kafka.producer(), b"a", b"b", b"c")
    kafka.delete_records(2)
    consumer = kafka.consumer()
    assert start_and_end(consumer, kafka.partition, SOON_S) == (2, 4)
    consumer.assign([kafka.at(0)])
    assert read(consumer, to_end(4)) == [(2, b"c"), (4, None)]


# -- transactions ----------------------------------------------------------------------------


def test_offsets_and_their_metadata_are_committed_with_the_records(kafka: Kafka) -> None:
    producer, (member, held) = kafka.producer(), kafka.join("0")
    read(member, lambda seen: len(held) == PARTITIONS)
    [none] = member.committed([kafka.at(0)], timeout=SOON_S)
    assert none.offset < 0
    metadata = member.consumer_group_metadata()
    assert clients.generation(metadata) >= 0
    producer.begin_transaction()
    kafka.produce(producer, b"a")
    producer.send_offsets_to_transaction([kafka.at(7, 0, "notes")], metadata, SOON_S)
    producer.commit_transaction(SOON_S)
    [found] = member.committed([kafka.at(0)], timeout=SOON_S)
    assert (found.offset, found.metadata) == (7, "notes")


def test_an_offset_in_an_open_transaction_is_waited_for(kafka: Kafka) -> None:
    producer, (member, held) = kafka.producer(), kafka.join("0")
    read(member, lambda seen: len(held) == PARTITIONS)
    producer.begin_transaction()
    kafka.produce(producer, b"a")
    metadata = member.consumer_group_metadata()
    producer.send_offsets_to_transaction([kafka.at(7)], metadata, SOON_S)
    # Another partition of the group is not held up.
    [other] = member.committed([kafka.at(0, 1)], timeout=SOON_S)
    assert other.offset < 0
    code_of(lambda: member.committed([kafka.at(0)], timeout=0.5))
    producer.commit_transaction(SOON_S)
    wait_until(
        lambda: member.committed([kafka.at(0)], timeout=5)[0].offset == 7, SOON_S, "it is committed"
    )


def test_a_commit_of_one_that_was_a_member_is_refused_and_aborted(kafka: Kafka) -> None:
    producer, (member, held) = kafka.producer(), kafka.join("0")
    read(member, lambda seen: len(held) == PARTITIONS)
    before = member.consumer_group_metadata()
    other, held_by_other = kafka.join("1")
    read(other, lambda seen: len(held) == len(held_by_other) == 1, member)
    producer.begin_transaction()
    kafka.produce(producer, b"a")
    refused = code_of(lambda: producer.send_offsets_to_transaction([kafka.at(7)], before, SOON_S))
    assert refused.txn_requires_abort()
    producer.abort_transaction(SOON_S)
    assert member.committed([kafka.at(0)], timeout=SOON_S)[0].offset < 0
    # The same producer goes on. Without offsets nobody checks the group.
    producer.begin_transaction()
    kafka.produce(producer, b"b")
    producer.send_offsets_to_transaction([], before, SOON_S)
    producer.commit_transaction(SOON_S)


def test_a_producer_that_follows_fences_the_one_before_it(kafka: Kafka) -> None:
    first = kafka.producer()
    first.begin_transaction()
    kafka.produce(first, b"open")
    second = kafka.producer()
    error = code_of(lambda: first.commit_transaction(SOON_S))
    assert not error.retriable()
    assert not error.txn_requires_abort()
    kafka.write(second, b"a")
    consumer = kafka.consumer()
    consumer.assign([kafka.at(0)])
    values = [value for _, value in read(consumer, to_end(4)) if value is not None]
    assert values == [b"a"]


def test_a_record_that_is_too_large_is_refused_at_once(kafka: Kafka) -> None:
    producer = kafka.producer()
    producer.begin_transaction()
    error = code_of(lambda: kafka.produce(producer, b"x" * 17_000_000))
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    producer.abort_transaction(SOON_S)
    kafka.write(producer, b"a")


# -- groups ----------------------------------------------------------------------------------


def test_a_second_member_gets_half_and_gives_it_back(kafka: Kafka) -> None:
    first, held = kafka.join("0")
    read(first, lambda seen: sorted(held) == [0, 1])
    second, held_by_second = kafka.join("1")
    read(second, lambda seen: len(held) == len(held_by_second) == 1, first)
    assert sorted(held + held_by_second) == [0, 1]
    second.close()
    assert held_by_second == []


def test_what_a_callback_does_not_assign_the_client_does(kafka: Kafka) -> None:
    """And an empty assignment counts as one."""
    kafka.write(kafka.producer(), b"a")
    given: list[int] = []

    def noted(consumer: Any, partitions: list[TopicPartition]) -> None:
        given.extend(item.partition for item in partitions)

    def declined(consumer: Any, partitions: list[TopicPartition]) -> None:
        noted(consumer, partitions)
        consumer.incremental_assign([])

    member, _ = kafka.join("0", on_assign=noted, on_revoke=None)
    assert (0, b"a") in read(member, to_end(2))
    member.close()
    given.clear()
    taker, _ = kafka.join("1", on_assign=declined, on_revoke=None)
    read(taker, lambda seen: len(given) == PARTITIONS)
    assert taker.consume(100, 1.0) == []


def test_a_static_member_is_fenced_by_one_with_the_same_slot(kafka: Kafka) -> None:
    first, held = kafka.join("0")
    read(first, lambda seen: len(held) == PARTITIONS)
    second, held_by_second = kafka.join("0")
    fenced = Fenced(first, kafka.errors)
    read(second, lambda seen: len(held_by_second) == PARTITIONS and fenced.is_told, fenced)


class Fenced:
    """Polls of a consumer that is fenced: a call tells of it, a message, or the callback."""

    def __init__(self, consumer: Any, errors: list[KafkaError]) -> None:
        self._consumer = consumer
        self._errors = errors

    @property
    def is_told(self) -> bool:
        return any(error.fatal() or error.code() == KafkaError._FATAL for error in self._errors)

    def consume(self, at_most: int, timeout: float) -> None:
        try:
            messages = self._consumer.consume(at_most, timeout)
        except KafkaException as error:
            self._errors.append(error.args[0])
        else:
            self._errors += [message.error() for message in messages if message.error()]


# -- topics ----------------------------------------------------------------------------------


def test_topics_are_described_by_their_ids_and_missing_ones_are_unknown(kafka: Kafka) -> None:
    kafka.create(f"{kafka.prefix}other")
    names = [kafka.topic, f"{kafka.prefix}other", f"{kafka.prefix}missing"]
    asked = kafka.admin.describe_topics(TopicCollection(names), request_timeout=SOON_S)
    first, second = (asked[name].result(SOON_S) for name in names[:2])
    assert len(first.partitions) == PARTITIONS
    ids = {topic.topic_id.get_most_significant_bits() for topic in (first, second)}
    assert len(ids) == 2 and 0 not in ids
    missing = code_of(lambda: asked[names[2]].result(SOON_S))
    assert missing.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
