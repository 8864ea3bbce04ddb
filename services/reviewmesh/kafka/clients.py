"""Kafka clients with the options that exactly-once needs; an operator's own options come last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from reviewmesh.settings import KafkaSettings, Settings
from reviewmesh_kit.settings import variable
from reviewmesh_schemas.names import READER_GROUP

TRANSACTION_TIMEOUT_MS = 10_000
GENERATION = slice(7, 11)
# Size of all records of one batch, decompressed. A few hundred kilobytes may decompress to
# gigabytes:
# the client decompresses a batch before any code can check it, and enforces this limit for zstd
# only.
LARGEST_BATCH = 32 * 1024 * 1024
# Errors of one batch that the client returns at every fetch: it never advances.
REFUSED_BATCH = (
    KafkaError._BAD_COMPRESSION,
    KafkaError._BAD_MSG,
    KafkaError._NOT_IMPLEMENTED,
)
# librdkafka's own log; a client delivers it when it is polled.
LOGGER = logging.getLogger("librdkafka")
# For every client: how soon it notices that a broker is back.
RECONNECT = {"reconnect.backoff.max.ms": "1000"}
# What a client raises for its options, depending on whether librdkafka or its binding rejects them.
REFUSALS = (KafkaException, AttributeError, TypeError, ValueError)


class BadOption(ValueError):
    """librdkafka rejects an option; the message names the setting and contains no secret."""


def consumer_options(settings: Settings, group: str) -> dict[str, str]:
    """For a member of `group` (with the prefix) that reads committed records only."""
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
        "receive.message.max.bytes": str(LARGEST_BATCH),
        "topic.metadata.refresh.interval.ms": "30000",
        "allow.auto.create.topics": "false",
        **RECONNECT,
        **settings.kafka.as_librdkafka(),
        "group.id": group,
        "group.instance.id": settings.slot,
    }


def producer_options(settings: Settings, group: str) -> dict[str, str]:
    """For the transactional producer of this slot: a restart fences its predecessor."""
    return {
        "transaction.timeout.ms": str(TRANSACTION_TIMEOUT_MS),
        "message.timeout.ms": "8000",
        "linger.ms": "5",
        "compression.type": "lz4",
        "message.max.bytes": "16777216",
        "queue.buffering.max.messages": "100000",
        **RECONNECT,
        # When all brokers have been away for a while, librdkafka forgets them and bootstraps anew.
        # A transactional producer that does so makes no request any more (seen with 2.16: broker
        # killed and back after 20 s). Without it, a call that hangs is bounded, and replaces it.
        "metadata.recovery.strategy": "none",
        **settings.kafka.as_librdkafka(),
        "transactional.id": f"{group}-{settings.slot}",
    }


def reader_options(settings: Settings) -> dict[str, Any]:
    """For a consumer that joins no group and assigns its partitions itself."""
    options = consumer_options(settings, settings.prefix + READER_GROUP)
    del options["group.instance.id"]
    return quiet(options)


def quiet(options: Mapping[str, str]) -> dict[str, Any]:
    """For a client whose calls report every failure: no log of its own."""
    return {name: value for name, value in options.items() if name != "debug"} | {"log_level": "0"}


def generation(metadata: object) -> int:
    """The generation in librdkafka's serialised group metadata (bytes 7 to 10 of librdkafka 2.x);
    negative before joining."""
    data = bytes(metadata)  # type: ignore[call-overload]
    return int.from_bytes(data[GENERATION], "little", signed=True)


OnError = Callable[[KafkaError], None]
OnDelivery = Callable[[KafkaError | None, Any], None]


def make_consumer(options: Mapping[str, str], on_error: OnError) -> Consumer:
    return Consumer({**options, "error_cb": on_error, "logger": LOGGER})


def make_producer(
    options: Mapping[str, str],
    on_error: OnError,
    on_delivery: OnDelivery = lambda error, message: None,
) -> Producer:
    callbacks: dict[str, Any] = {"error_cb": on_error, "on_delivery": on_delivery}
    # Successful deliveries are reported by the transaction.
    callbacks["delivery.report.only.error"] = True
    return Producer({**options, **callbacks, "logger": LOGGER})


def make_admin(settings: KafkaSettings, on_error: OnError = lambda error: None) -> AdminClient:
    """Raises BadOption."""
    options = quiet({**RECONNECT, **settings.as_librdkafka()})
    try:
        return AdminClient(options | {"error_cb": on_error})
    except REFUSALS as error:
        raise _bad_option(settings, error) from None


def check_options(settings: Settings) -> None:
    """Raises BadOption where librdkafka rejects the operator's options."""
    clients: list[Any] = []
    try:
        for make, options in (
            (Consumer, consumer_options(settings, "reviewmesh-check")),
            (Producer, producer_options(settings, "reviewmesh-check")),
        ):
            clients.append(make(quiet(options)))
    except REFUSALS as error:
        raise _bad_option(settings.kafka, error) from None
    finally:
        for client in clients:
            client.close()


def _bad_option(settings: KafkaSettings, error: Exception) -> BadOption:
    detail = error.args[0]
    reason = (detail.str() if isinstance(detail, KafkaError) else str(detail)).strip()
    options = settings.as_librdkafka()
    # The longest name first, since one may be the prefix of another.
    named = [name for name in sorted(options, key=len, reverse=True) if name in reason]
    where = variable("kafka", named[0].replace(".", "_") if named else "*")
    for secret in settings.secrets():
        reason = reason.replace(secret, "**********")
    return BadOption(
        f"{where}: librdkafka refuses it: {reason}; its options are named as in its documentation, "
        "with _ for ."
    )
