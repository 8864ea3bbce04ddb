"""How Faust reaches the broker: committed records only, and librdkafka's options translated."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import faust
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver

from reviewmesh.runtime.settings import KafkaSettings, variable

CALL_TIMEOUT_S = 10.0
RETRY_S = 1.0
SECURITY = ("security.", "sasl.", "ssl.", "enable.ssl.")
TRANSLATED = {
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
}
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class UnusableOption(ValueError):
    """A setting that this service cannot follow."""


class ReadCommittedThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust reads uncommitted records at least-once and has no setting for it."""
        consumer = super()._create_worker_consumer(transport)
        assert consumer._isolation_level == "read_uncommitted"
        consumer._isolation_level = "read_committed"
        return consumer


class ReadCommittedConsumer(driver.Consumer):
    """Commits up to the last record acknowledged: the outbox acknowledges in order.

    Faust looks for a gapless run of offsets instead. Transaction markers and aborted records are
    gaps, and at a partition's first offsets its account of gaps stops the commits for good.
    """

    def _new_consumer_thread(self) -> ReadCommittedThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        """Every record that was fetched is given out, or its partition is read again from it.

        Faust's own lets go of what it has fetched when a partition is paused or the flow stopped
        meanwhile, and seeks to what is committed then. After a kill that left out a run of records
        of one partition in about half of the runs of the test.
        """
        records, _ = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        left_out: dict[Any, int] = {}
        for tp, record in self.scheduler.iterate(records):
            live = self.flow_active and self.app.consumer_generation_id == generation
            if live and tp not in left_out and self._takes(tp):
                yield tp, self._to_message(tp, record)
            else:
                left_out.setdefault(tp, record.offset)
        for tp, offset in left_out.items():
            if tp in self.assignment() and await self.position(tp) > offset:
                await self.seek(tp, offset)

    def _takes(self, tp: Any) -> bool:
        return tp in self._get_active_partitions() or tp in self._buffered_partitions

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Gaps need no account."""

    def _new_offset(self, tp: Any) -> int | None:
        acknowledged = self._acked[tp]
        if not acknowledged:
            return None
        offset: int = max(acknowledged) + 1
        acknowledged.clear()
        self._acked_index[tp].clear()
        return offset


class ReadCommittedTransport(driver.Transport):
    Consumer = ReadCommittedConsumer


def bootstrap_servers(settings: KafkaSettings) -> list[str]:
    return [server.strip() for server in settings.bootstrap_servers.split(",")]


def credentials(settings: KafkaSettings) -> faust.auth.Credentials | None:
    """librdkafka's security options as Faust's credentials; None for plaintext.

    Its other options tune librdkafka, which is not used here. Raises UnusableOption.
    """
    options = settings.as_librdkafka()
    for name in options:
        if name.startswith(SECURITY) and name not in TRANSLATED:
            raise UnusableOption(f"{_variable(name)}: this service cannot follow {name}")
    protocol = _one_of(options, "security.protocol", "PLAINTEXT", PROTOCOLS)
    context = _ssl_context(options) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        name = "sasl.mechanisms" if "sasl.mechanisms" in options else "sasl.mechanism"
        return faust.SASLCredentials(
            username=options.get("sasl.username"),
            password=options.get("sasl.password"),
            mechanism=_one_of(options, name, "PLAIN", MECHANISMS),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def _ssl_context(options: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if "ssl.certificate.location" in options:
            context.load_cert_chain(
                options["ssl.certificate.location"],
                options.get("ssl.key.location"),
                # An empty one, so that a key that needs a password is an error, not a prompt.
                options.get("ssl.key.password", ""),
            )
    except OSError as error:
        raise UnusableOption(
            "REVIEWMESH_KAFKA__SSL_…_LOCATION: expected readable PEM files, got "
            f"{type(error).__name__}: {error}"
        ) from error
    return context


def _one_of(options: dict[str, str], name: str, default: str, known: tuple[str, ...]) -> str:
    value = options.get(name, default).upper()
    if value not in known:
        raise UnusableOption(f"{_variable(name)}: expected one of {', '.join(known)}")
    return value


def _variable(option: str) -> str:
    return variable("kafka", option.replace(".", "_"))


async def await_topics(
    settings: KafkaSettings,
    topics: tuple[str, ...],
    waiting_for: Callable[[str], None],
) -> tuple[int, int]:
    """Wait until the broker answers and has the topics; gives their partitions and the brokers.

    All topics must have the same number of partitions.
    """
    while True:
        try:
            found, brokers = await asyncio.wait_for(_describe(settings, topics), CALL_TIMEOUT_S)
            missing = [topic for topic in topics if topic not in found]
            if missing:
                problem = f"topics {', '.join(missing)}; run `reviewmesh topics apply`"
            elif len(set(found.values())) > 1:
                problem = f"topics with equal numbers of partitions, found {found}"
            else:
                return found[topics[0]], brokers
        except (KafkaError, TimeoutError, OSError) as error:
            problem = f"the broker at {settings.bootstrap_servers} ({type(error).__name__})"
        waiting_for(problem)
        await asyncio.sleep(RETRY_S)


async def _describe(settings: KafkaSettings, topics: tuple[str, ...]) -> tuple[dict[str, int], int]:
    auth = driver.credentials_to_aiokafka_auth(credentials(settings))
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers(settings), **auth)
    try:
        await admin.start()
        described = await admin.describe_topics(list(topics))
        cluster = await admin.describe_cluster()
    finally:
        await admin.close()
    counts = {
        topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]
    }
    return counts, len(cluster["brokers"])
