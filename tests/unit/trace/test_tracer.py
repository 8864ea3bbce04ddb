"""What the tracer commits while the registry is away, with a scripted consumer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, TopicPartition

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.kafka import clients
from reviewmesh.process.startup import Startup
from reviewmesh.settings import Settings, TracesSettings
from reviewmesh.trace.service import TracerService
from reviewmesh_schemas.names import DEAD_LETTER
from tests.broker import wait_until


class Message:
    def error(self) -> None:
        return None

    def topic(self) -> str:
        return DEAD_LETTER

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"\x00\x00\x00\x00\x01"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, 1


class Consumer:
    """One dead letter, once; then nothing."""

    def __init__(self) -> None:
        self._unread = [Message()]
        self.committed: list[tuple[str, int, int]] = []

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        """Nothing: it is assigned all of it."""

    def consume(self, count: int, timeout: float) -> list[Message]:
        threading.Event().wait(0.01)
        found, self._unread = self._unread, []
        return found

    def assignment(self) -> list[TopicPartition]:
        return []

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.committed += [(at.topic, at.partition, at.offset) for at in offsets]

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Consumer:
    consumer = Consumer()
    monkeypatch.setattr(clients, "make_consumer", lambda options, on_error: consumer)
    monkeypatch.setattr(Startup, "wait", lambda startup: None)
    return consumer


def running(tracer: TracerService) -> threading.Thread:
    thread = threading.Thread(target=tracer.run, daemon=True)
    thread.start()
    return thread


def tracer_of() -> TracerService:
    traces = TracesSettings(endpoint="http://127.0.0.1:1")
    return TracerService(Settings(traces=traces), structlog.get_logger())


def test_a_stop_while_the_registry_is_away_leaves_the_record_for_the_next_start(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(codec: Codec, value: bytes) -> Any:
        raise RegistryUnavailable("as the test says")

    monkeypatch.setattr(Codec, "decode_ours", away)
    tracer = tracer_of()
    thread = running(tracer)
    wait_until(lambda: tracer.waiting_for == "as the test says", 10, "it says what it waits for")
    beat = tracer.heartbeat
    wait_until(lambda: tracer.heartbeat > beat, 10, "it waits, and does not hang")
    tracer.stop(15, None)
    thread.join(10)
    assert not thread.is_alive()
    assert consumer.committed == []


def test_a_record_that_the_mesh_did_not_write_is_passed_over(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [RegistryUnavailable("as the test says"), DecodeError("as the test says")]

    def decoded(codec: Codec, value: bytes) -> Any:
        raise answers.pop(0)

    monkeypatch.setattr(Codec, "decode_ours", decoded)
    tracer = tracer_of()
    thread = running(tracer)
    wait_until(lambda: bool(consumer.committed), 10, "its offset is committed")
    assert tracer.waiting_for == ""
    tracer.stop(15, None)
    thread.join(10)
    assert consumer.committed == [(DEAD_LETTER, 0, 8)]
