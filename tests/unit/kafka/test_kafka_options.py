"""The operator's options reach real clients, and a refused one is named without a stack trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from reviewmesh.kafka import clients as kafka
from reviewmesh.settings import KafkaSettings, Settings

CLOSED = "127.0.0.1:1"
SECRET = "hunter2-s3cret"
KEY_PASSWORD = "pass-of-the-key"
Options = dict[str, str]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """An authority and a client's certificate, in files as an operator has them."""
    from cryptography.hazmat.primitives import serialization

    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    identity = authority.issue_cert("mesh.test")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    identity.cert_chain_pems[0].write_to_path(folder / "mesh.pem")
    key = serialization.load_pem_private_key(identity.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(KEY_PASSWORD.encode()),
    )
    (folder / "mesh.key").write_bytes(encrypted)
    return {
        "ssl_ca_location": str(folder / "ca.pem"),
        "ssl_certificate_location": str(folder / "mesh.pem"),
        "ssl_key_location": str(folder / "mesh.key"),
        "ssl_key_password": KEY_PASSWORD,
    }


def settings_with(**options: str) -> Settings:
    values: dict[str, Any] = {"bootstrap_servers": CLOSED, **options}
    return Settings(kafka=KafkaSettings(**values))


def sasl(mechanism: str = "PLAIN") -> Options:
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_username": "mesh",
        "sasl_password": SECRET,
    }


@pytest.mark.parametrize(
    "options_of",
    [
        lambda settings: kafka.consumer_options(settings, "g"),
        lambda settings: kafka.producer_options(settings, "g"),
        kafka.reader_options,
    ],
    ids=["consumer", "producer", "reader"],
)
def test_every_client_is_given_sasl_and_tls(
    options_of: Callable[[Settings], Options], tls: Options
) -> None:
    given = {**sasl(), **tls}
    options = options_of(settings_with(**given))
    assert {name: options[name.replace("_", ".")] for name in given} == given


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_real_clients_accept_sasl_and_tls(mechanism: str, tls: Options) -> None:
    settings = settings_with(**sasl(mechanism), **tls)
    kafka.check_options(settings)
    kafka.make_admin(settings.kafka)


def test_the_key_is_really_read_with_its_password(tls: Options) -> None:
    wrong = tls | {"ssl_key_password": "wrong-" + SECRET}
    with pytest.raises(kafka.BadOption, match="REVIEWMESH_KAFKA__SSL_KEY_LOCATION") as caught:
        kafka.check_options(settings_with(**sasl(), **wrong))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("session_timeout_msec", "6000"),
        ("session_timeout_ms", "soon"),
        ("session_timeout_ms", "999999999"),
        ("security_protocol", "TLS"),
        ("ssl_key_pem", SECRET),
        ("acks", "1"),
        ("error_cb", "print"),
    ],
)
def test_a_refused_option_is_named(option: str, value: str) -> None:
    settings = settings_with(**{"security_protocol": "SSL", option: value})
    with pytest.raises(kafka.BadOption) as caught:
        kafka.check_options(settings)
    assert str(caught.value).startswith(f"REVIEWMESH_KAFKA__{option.upper()}: ")
    assert SECRET not in str(caught.value)


def test_a_secret_inside_a_refusal_is_hidden() -> None:
    """librdkafka names no secret today: so one that is a word of its refusal stands in."""
    with pytest.raises(kafka.BadOption) as caught:
        kafka.check_options(settings_with(foo_bar="1", sasl_password="property"))
    assert "property" not in str(caught.value)
    assert "FOO_BAR" in str(caught.value)


def test_an_admin_client_refuses_alike() -> None:
    with pytest.raises(kafka.BadOption, match="REVIEWMESH_KAFKA__FOO_BAR"):
        kafka.make_admin(settings_with(foo_bar="1").kafka)


def test_quiet_clients_write_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Also where the operator asks the others for everything."""
    settings = settings_with(debug="all", session_timeout_ms="6000")
    kafka.check_options(settings)
    admin = kafka.make_admin(settings.kafka)
    with pytest.raises(Exception, match="metadata"):
        admin.list_topics(timeout=0.5)
    assert capfd.readouterr() == ("", "")
