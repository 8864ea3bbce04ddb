"""How the broker is reached: librdkafka's options translated; the topics that must be there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import faust
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from faust.transport.drivers import aiokafka as driver

from reviewmesh.settings import KafkaSettings
from reviewmesh_kit.settings import variable

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


def bootstrap_servers(settings: KafkaSettings) -> list[str]:
    return [server.strip() for server in settings.bootstrap_servers.split(",")]


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """Where the broker is and who asks, as arguments of aiokafka's clients."""
    auth = driver.credentials_to_aiokafka_auth(credentials(settings))
    return {"bootstrap_servers": bootstrap_servers(settings), **auth}


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
    own: Mapping[str, dict[str, str]],
    waiting_for: Callable[[str], None],
) -> int:
    """Wait until the broker answers and has the topics; gives their number of partitions.

    All must have the same. The `own` ones are created with these options where they are missing.
    """
    while True:
        problem = "its own topics"
        try:
            found = await asyncio.wait_for(_provide(settings, topics, own), CALL_TIMEOUT_S)
            missing = [topic for topic in topics if topic not in found]
            if missing:
                problem = f"topics {', '.join(missing)}; run `reviewmesh topics apply`"
            elif len(set(found.values())) > 1:
                problem = f"topics with equal numbers of partitions, found {found}"
            elif len(found) == len(topics) + len(own):
                return found[topics[0]]
        except (KafkaError, TimeoutError, OSError) as error:
            problem = f"the broker at {settings.bootstrap_servers} ({error!r})"
        waiting_for(problem)
        await asyncio.sleep(RETRY_S)


async def _provide(
    settings: KafkaSettings, topics: tuple[str, ...], own: Mapping[str, dict[str, str]]
) -> dict[str, int]:
    """The partitions of those that are there; creates the own ones once all others are."""
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        await admin.start()
        found = await _partitions(admin, [*topics, *own])
        missing = [topic for topic in own if topic not in found]
        if missing and all(topic in found for topic in topics):
            cluster = await admin.describe_cluster()
            copies = min(3, len(cluster["brokers"]))
            created = await admin.create_topics(
                [
                    NewTopic(name, found[topics[0]], copies, topic_configs=own[name])
                    for name in missing
                ]
            )
            for _, code, message in created.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise for_code(code)(message)
            found = await _partitions(admin, [*topics, *own])
    finally:
        await admin.close()
    return found


async def _partitions(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, int]:
    described = await admin.describe_topics(topics)
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]}
