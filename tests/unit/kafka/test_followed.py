"""A topic that is followed goes on behind a record that cannot be taken."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from reviewmesh.kafka import clients
from reviewmesh.kafka.followed import FollowedTopic
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.settings import Settings
from tests.broker import wait_until


class Message:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return 0

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, 1


class Consumer:
    """Five records, from wherever it is assigned."""

    def assign(self, partitions: Any) -> None:
        [at] = partitions
        self._next = at.offset

    def consume(self, count: int, timeout: float) -> list[Message]:
        found = [Message(offset) for offset in range(self._next, 5)]
        self._next = 5
        return found

    def close(self) -> None:
        """Nothing."""


def test_a_record_that_cannot_be_taken_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "make_consumer", lambda options, on_error: Consumer())
    taken: list[int] = []
    away = [3]

    def take(record: Record) -> None:
        if record.offset == 1:
            raise RuntimeError("as the test says")
        if record.offset in away:
            away.remove(record.offset)
            raise Unavailable("as the test says")
        taken.append(record.offset)

    followed = FollowedTopic(Settings(), "reviews.control", 1, take, structlog.get_logger())
    followed.start()
    try:
        wait_until(lambda: len(taken) == 4, 10, "the other records are taken")
    finally:
        followed.stop()
    assert taken == [0, 2, 3, 4]
