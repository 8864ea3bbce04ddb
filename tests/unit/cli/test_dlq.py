"""`dlq list` over a topic to which strangers write."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from reviewmesh.avro.codec import DecodeError
from reviewmesh.cli.dlq import app
from reviewmesh.query.connection import Connection
from reviewmesh_schemas.names import DEAD_LETTER
from tests.scripted_kafka import Cluster
from tests.unit.cli.test_terminal import NASTY, steers


class Refusing:
    """A codec whose error quotes the stranger: the name of a field in a schema of its own."""

    def __init__(self, quoted: str) -> None:
        self._quoted = quoted

    def decode(self, value: bytes) -> object:
        raise DecodeError(f"unknown field {self._quoted}")


@pytest.mark.parametrize("text", NASTY)
def test_what_an_error_quotes_of_a_stranger_is_text_on_the_terminal(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster()
    cluster.create(DEAD_LETTER, 1)
    cluster.append(DEAD_LETTER, 0, b"not ours")
    cluster.install(monkeypatch)
    monkeypatch.setenv("REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS", "broker.invalid:9092")
    monkeypatch.setattr(Connection, "codec", lambda self, topic: Refusing(text))
    done = CliRunner().invoke(app, ["list"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "no dead letters\n"
    assert done.stderr.startswith("0/0: no dead letter: unknown field ")
    assert not steers(done.stderr.removesuffix("\n"))
    if text.isascii() and text.isprintable():
        assert text in done.stderr, "markup is shown, not read"
