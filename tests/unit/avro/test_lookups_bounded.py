"""What ids that nobody registered may cost, asked of the real client; the server is in process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from reviewmesh.avro import registry as client
from reviewmesh.avro.codec import HEADER, Codec, DecodeError, load_schema
from reviewmesh.avro.http_client import HttpClient
from reviewmesh.avro.registry import SchemaRegistry, UnknownSchemaId

NEWEST = 50
ANSWER_TAKES_S = 0.02


class Server:
    """Knows ids up to NEWEST; what it does not know takes a while by the client's clock."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.newest = NEWEST
        self.now = 1_000.0
        self.registry = SchemaRegistry("http://registry.invalid")
        served = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.registry._client = HttpClient(served, 60, client.MAX_ANSWER)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/subjects/"):
            return httpx.Response(200, json={"id": NEWEST})
        schema_id = int(request.url.path.rsplit("/", 1)[1])
        self.asked.append(schema_id)
        if schema_id <= self.newest:
            return httpx.Response(200, json={"schema": json.dumps(load_schema("review"))})
        self.now += ANSWER_TAKES_S
        return httpx.Response(404, json={"error_code": 40403})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server: Any = None
    monkeypatch.setattr(time, "monotonic", lambda: server.now if server else 1_000.0)
    server = Server()
    server.registry.id_of("reviews.raw-value", load_schema("review"))
    yield server


def test_thousands_of_unknown_ids_are_refused_without_asking_for_each(server: Server) -> None:
    for schema_id in range(100_000, 120_000):
        with pytest.raises(UnknownSchemaId):
            server.registry.schema(schema_id)
    most = client.SAVED_UP_S / (1 - client.SHARE_OF_TIME) / ANSWER_TAKES_S
    assert len(server.asked) <= most + 1
    assert server.registry.refuses(120_000)
    assert not server.registry.refuses(NEWEST + 1)
    asked = len(server.asked)
    with pytest.raises(UnknownSchemaId, match="replay the record"):
        server.registry.schema(120_000)
    assert len(server.asked) == asked


def test_a_schema_just_registered_is_found_meanwhile(server: Server) -> None:
    for schema_id in range(100_000, 101_000):
        with pytest.raises(UnknownSchemaId):
            server.registry.schema(schema_id)
    server.newest = NEWEST + 5
    assert server.registry.schema(NEWEST + 5)["name"] == "Review"


def test_asking_goes_on_after_a_while(server: Server) -> None:
    for schema_id in range(100_000, 101_000):
        with pytest.raises(UnknownSchemaId):
            server.registry.schema(schema_id)
    server.now += client.SAVED_UP_S
    with pytest.raises(UnknownSchemaId, match="knows no schema of id 200000"):
        server.registry.schema(200_000)


def test_a_refusal_that_is_remembered_holds_no_record(server: Server) -> None:
    """A kept exception that is raised again and again keeps every record that it was raised for."""
    codec = Codec(server.registry, "reviews.raw-value", "review")
    for _ in range(100):
        with pytest.raises(DecodeError):
            codec.decode(HEADER.pack(0, 777) + bytes(1_000))
    assert server.asked == [777]
    kept, _ = server.registry._refused[777]
    assert kept.__traceback__ is None
