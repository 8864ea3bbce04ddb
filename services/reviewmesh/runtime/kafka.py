"""Kafka clients with the options that exactly-once needs; an operator's own options come last."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaError, Producer

from reviewmesh.runtime.settings import Settings

TRANSACTION_TIMEOUT_MS = 10_000
GENERATION = slice(7, 11)


def consumer_options(settings: Settings, group: str) -> dict[str, str]:
    """A member of `group` (with the prefix) that reads committed records only."""
    return {
        "auto.offset.reset": "earliest",
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "enable.partition.eof": "true",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": "6000",
        "heartbeat.interval.ms": "1000",
        "max.poll.interval.ms": "60000",
        "fetch.wait.max.ms": "50",
        "fetch.queue.backoff.ms": "10",
        "queued.max.messages.kbytes": "4096",
        "reconnect.backoff.max.ms": "1000",
        "topic.metadata.refresh.interval.ms": "30000",
        "allow.auto.create.topics": "false",
        **settings.kafka.as_librdkafka(),
        "group.id": group,
        "group.instance.id": settings.slot,
    }


def producer_options(settings: Settings, group: str) -> dict[str, str]:
    """The transactional producer of this slot: a restart fences what the dead one left open."""
    return {
        "transaction.timeout.ms": str(TRANSACTION_TIMEOUT_MS),
        "message.timeout.ms": "8000",
        "linger.ms": "5",
        "compression.type": "lz4",
        "message.max.bytes": "16777216",
        "queue.buffering.max.messages": "100000",
        "reconnect.backoff.max.ms": "1000",
        **settings.kafka.as_librdkafka(),
        "transactional.id": f"{group}-{settings.slot}",
    }


def reader_options(settings: Settings) -> dict[str, str]:
    """A consumer without a group, for reading a partition by hand."""
    options = consumer_options(settings, f"{settings.prefix}reviewmesh-reader")
    del options["group.instance.id"]
    return options


def generation(metadata: object) -> int:
    """The generation inside librdkafka's serialised group metadata; negative before joining."""
    data = bytes(metadata)  # type: ignore[call-overload]
    return int.from_bytes(data[GENERATION], "little", signed=True)


OnError = Callable[[KafkaError], None]


def make_consumer(options: Mapping[str, str], on_error: OnError) -> Consumer:
    return Consumer({**options, "error_cb": on_error})


def make_producer(options: Mapping[str, str], on_error: OnError) -> Producer:
    return Producer({**options, "error_cb": on_error})
