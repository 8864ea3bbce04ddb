"""Writes what processed records ask for, then acknowledges the records.

Faust's own table write gives no word of a failure, and an offset committed before the writes of
its record have arrived would lose them at a kill. So the writes of a turn, of the changelog too,
are sent here, awaited, and only then are the turn's records acknowledged, in their order: what is
committed has been written. What repeats within a turn is published once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

FULL = 1_000
"""Records that wait for their writes before reading goes no further."""


class Message(NamedTuple):
    topic: Any
    partition: int
    key: Any
    value: Any


class Record(Protocol):
    def ack(self) -> bool: ...


Subject = TypeVar("Subject", bound=Hashable)
Send = Callable[[Message], Awaitable[Awaitable[object]]]


class Outbox(Generic[Subject]):
    """`publish` makes the message that tells the present state of a subject."""

    def __init__(self, send: Send, publish: Callable[[Subject], Message]) -> None:
        self._send = send
        self._publish = publish
        self._records: list[Record] = []
        self._messages: list[Message] = []
        self._subjects: dict[Subject, None] = {}
        self._flushing = asyncio.Lock()

    @property
    def is_full(self) -> bool:
        return len(self._records) >= FULL

    def add(self, record: Record, messages: Iterable[Message], subjects: Iterable[Subject]) -> None:
        self._records.append(record)
        self._messages.extend(messages)
        self._subjects.update(dict.fromkeys(subjects))

    async def flush(self) -> None:
        """Raises what the producer raises; nothing of the turn is acknowledged then."""
        async with self._flushing:
            records, messages, subjects = self._records, self._messages, self._subjects
            self._records, self._messages, self._subjects = [], [], {}
            messages.extend(self._publish(subject) for subject in subjects)
            deliveries = [await self._send(message) for message in messages]
            await asyncio.gather(*deliveries)
            for record in records:
                record.ack()
