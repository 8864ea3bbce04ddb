"""Looking writers' schemas up: on the real registry, and on one that answers with nonsense."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from reviewmesh.avro import registry as client
from reviewmesh.avro.registry import (
    RegistryUnavailable,
    SchemaRegistry,
    UnknownSchemaId,
    UnusableSchema,
)
from tests.broker import TestStack

JSON_SCHEMA = json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"})


def registered(stack: TestStack, subject: str, schema: str, **more: object) -> int:
    answer = httpx.post(
        f"{stack.registry_url}/subjects/{subject}/versions", json={"schema": schema, **more}
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


def test_schemas_of_other_types_and_with_references_are_unusable(
    stack: TestStack, prefix: str
) -> None:
    part = '{"type": "record", "name": "acme.Part", "fields": []}'
    whole = '{"type": "record", "name": "W", "fields": [{"name": "p", "type": "acme.Part"}]}'
    registered(stack, f"{prefix}part-value", part)
    reference = {"name": "acme.Part", "subject": f"{prefix}part-value", "version": 1}
    ids = {
        "is one of type JSON": registered(
            stack, f"{prefix}json-value", JSON_SCHEMA, schemaType="JSON"
        ),
        "is one of type PROTOBUF": registered(
            stack,
            f"{prefix}proto-value",
            'syntax = "proto3"; message Review { string review_id = 1; }',
            schemaType="PROTOBUF",
        ),
        "refers to other subjects": registered(
            stack, f"{prefix}whole-value", whole, references=[reference]
        ),
    }
    registry = SchemaRegistry(stack.registry_url)
    for said, schema_id in ids.items():
        for _ in range(2):
            with pytest.raises(UnusableSchema, match=said):
                registry.schema(schema_id)


def test_a_primitive_and_a_union_come_as_they_are(stack: TestStack, prefix: str) -> None:
    registry = SchemaRegistry(stack.registry_url)
    assert registry.schema(registered(stack, f"{prefix}a-value", '"string"')) == "string"
    union = registered(stack, f"{prefix}b-value", '["null", "string"]')
    assert registry.schema(union) == ["null", "string"]


UNKNOWN = b'{"error_code": 40403, "message": "not found"}'


class Nonsense(BaseHTTPRequestHandler):
    """Knows `answers` by path; counts what it is asked."""

    answers: dict[str, tuple[int, bytes]]
    asked: list[str]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        type(self).asked.append(self.path)
        status, body = type(self).answers.get(self.path, (404, UNKNOWN))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def nonsense() -> Iterator[tuple[SchemaRegistry, type[Nonsense]]]:
    handler = type("Handler", (Nonsense,), {"answers": {"/subjects": (200, b"[]")}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SchemaRegistry(f"http://127.0.0.1:{server.server_port}"), handler
    server.shutdown()
    thread.join()
    server.server_close()


DEEP = "[" * 100_000
BROKEN = {
    "an error": (500, b"oh"),
    "no JSON": (200, b"<html>"),
    "deep JSON": (200, DEEP.encode()),
    "too much": (200, b" " * (client.MAX_ANSWER + 1)),
    "no object": (200, b"[]"),
    "another program's 404": (404, b'{"error": "not found"}'),
    "no schema": (200, b"{}"),
    "a schema that is no text": (200, b'{"schema": 3}'),
    "a schema that is no JSON": (200, json.dumps({"schema": "record Review"}).encode()),
    "a deep schema": (200, json.dumps({"schema": DEEP}).encode()),
    "a long schema": (200, json.dumps({"schema": " " * (client.MAX_SCHEMA + 1)}).encode()),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_id_that_is_answered_with_nonsense_is_unusable_after_a_few_tries(
    nonsense: tuple[SchemaRegistry, type[Nonsense]], case: str
) -> None:
    registry, handler = nonsense
    handler.answers["/schemas/ids/7"] = BROKEN[case]
    for _ in range(5):
        with pytest.raises(UnusableSchema) as caught:
            registry.schema(7)
        assert len(str(caught.value)) < 1_000
    assert handler.asked.count("/schemas/ids/7") <= client.TRIES_OF_AN_ID


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"oh"), (401, b"oh"), (200, b"null"), (200, b"{}"), (404, b"{}"), (404, b"<html>")],
)
def test_a_registry_that_answers_nothing_with_sense_is_waited_for(
    nonsense: tuple[SchemaRegistry, type[Nonsense]], status: int, body: bytes
) -> None:
    registry, handler = nonsense
    handler.answers |= {"/subjects": (status, body), "/schemas/ids/7": (status, body)}
    with pytest.raises(RegistryUnavailable):
        registry.schema(7)
    handler.answers |= {"/schemas/ids/7": (200, b'{"schema": "\\"string\\""}')}
    assert registry.schema(7) == "string"


@pytest.mark.parametrize("body", [b"null", b"{}", b"[]", b'{"id": "1"}', b'{"id": null}'])
def test_an_address_that_answers_anything_is_no_registry(
    nonsense: tuple[SchemaRegistry, type[Nonsense]], body: bytes
) -> None:
    registry, handler = nonsense
    handler.answers["/subjects/reviews.raw-value"] = (200, body)
    handler.answers["/subjects/reviews.raw-value/versions"] = (200, body)
    with pytest.raises(RegistryUnavailable, match="check REVIEWMESH_REGISTRY__URL"):
        registry.id_of("reviews.raw-value", {})
    with pytest.raises(RegistryUnavailable, match="check REVIEWMESH_REGISTRY__URL"):
        registry.register("reviews.raw-value", {})


def test_an_unknown_id_is_asked_for_again_after_a_while(
    nonsense: tuple[SchemaRegistry, type[Nonsense]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, handler = nonsense
    for _ in range(3):
        with pytest.raises(UnknownSchemaId):
            registry.schema(7)
    assert handler.asked == ["/schemas/ids/7"]
    handler.answers["/schemas/ids/7"] = (200, b'{"schema": "\\"string\\""}')
    monkeypatch.setattr(client, "REFUSED_FOR_S", 0.0)
    with pytest.raises(UnknownSchemaId):
        registry.schema(8)
    handler.answers["/schemas/ids/8"] = handler.answers["/schemas/ids/7"]
    assert registry.schema(8) == "string"


def test_what_is_remembered_is_bounded(
    nonsense: tuple[SchemaRegistry, type[Nonsense]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, handler = nonsense
    monkeypatch.setattr(client, "KEPT_REFUSED", 10)
    monkeypatch.setattr(client, "KEPT_SCHEMAS", 10)
    for schema_id in range(100):
        handler.answers[f"/schemas/ids/{schema_id}"] = (200, b'{"schema": "\\"string\\""}')
        registry.schema(schema_id)
        with pytest.raises(UnknownSchemaId):
            registry.schema(1_000 + schema_id)
    assert len(registry._schemas) == len(registry._refused) == 10


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n{"])
def test_an_answer_that_trickles_is_given_up(begin: bytes) -> None:
    """In the headers as well as in the body."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(begin)
                while not ended.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            port = server.getsockname()[1]
            registry = SchemaRegistry(f"http://127.0.0.1:{port}", timeout_s=0.2)
            with pytest.raises(RegistryUnavailable, match="does not answer"):
                registry.schema(7)
        finally:
            ended.set()
            thread.join()
