"""Connection options of aiokafka, Faust's client, translated from librdkafka's.

The rest of the mesh, and the startup of this service too, use librdkafka itself.
"""

from __future__ import annotations

import ssl
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver

from reviewmesh.kafka.clients import BadOption
from reviewmesh.settings import KafkaSettings
from reviewmesh_kit.certificates import RenewedContext
from reviewmesh_kit.settings import variable

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


class UnusableOption(BadOption):
    """An option of librdkafka that this service does not support."""


def bootstrap_servers(settings: KafkaSettings) -> list[str]:
    return [server.strip() for server in settings.bootstrap_servers.split(",")]


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """The broker's address and the credentials, as arguments of aiokafka's clients."""
    auth = driver.credentials_to_aiokafka_auth(credentials(settings))
    return {"bootstrap_servers": bootstrap_servers(settings), **auth}


def credentials(settings: KafkaSettings) -> faust.auth.Credentials | None:
    """librdkafka's security options as Faust's credentials; None for plaintext.

    Its other options tune librdkafka, which is not used here. Raises UnusableOption.
    """
    options = settings.as_librdkafka()
    for name in options:
        if name.startswith(SECURITY) and name not in TRANSLATED:
            raise UnusableOption(f"{_variable(name)}: this service does not support {name}")
    protocol = _one_of(options, "security.protocol", "PLAINTEXT", PROTOCOLS)
    context = _ssl_context(settings) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        name = "sasl.mechanisms" if "sasl.mechanisms" in options else "sasl.mechanism"
        return faust.SASLCredentials(
            username=options.get("sasl.username"),
            password=options.get("sasl.password"),
            mechanism=_one_of(options, name, "PLAIN", MECHANISMS),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


# One for all clients of the process, by the options that it was made with.
_contexts: dict[tuple[tuple[str, str], ...], RenewedContext] = {}


def renew_certificates() -> None:
    """Let later connections use certificates that were replaced; call it every few seconds."""
    for context in _contexts.values():
        context.renew()


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    """Raises UnusableOption."""
    options = settings.as_librdkafka()
    made_with = tuple(sorted(options.items()))
    if made_with not in _contexts:
        _contexts[made_with] = _make_context(settings, options)
    return _contexts[made_with].context


def _make_context(settings: KafkaSettings, options: dict[str, str]) -> RenewedContext:

    def load(context: ssl.SSLContext) -> None:
        if "ssl.ca.location" in options:
            context.load_verify_locations(options["ssl.ca.location"])
        if "ssl.certificate.location" in options:
            context.load_cert_chain(
                options["ssl.certificate.location"],
                options.get("ssl.key.location"),
                # Empty, so that a key that needs a password is an error, not a prompt.
                options.get("ssl.key.password", ""),
            )

    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        load(context)
    except OSError as error:
        raise UnusableOption(
            "REVIEWMESH_KAFKA__SSL_…_LOCATION: expected readable PEM files, got "
            f"{type(error).__name__}: {error}"
        ) from error
    return RenewedContext(context, settings.certificates, load)


def _one_of(options: dict[str, str], name: str, default: str, known: tuple[str, ...]) -> str:
    value = options.get(name, default).upper()
    if value not in known:
        raise UnusableOption(f"{_variable(name)}: expected one of {', '.join(known)}")
    return value


def _variable(option: str) -> str:
    return variable("kafka", option.replace(".", "_"))
