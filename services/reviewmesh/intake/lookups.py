"""Records that wait for their writer's schema.

The registry is queried in other threads, so that neither a slow registry nor thousands of unknown
ids delay other partitions. Within a partition records keep their order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.kafka.record import Record
from reviewmesh.loop.dispatch import TURN_S

# The embedded registry on 2 cores takes 8 ms per answer with one call at a time, 3 ms with four,
# and
# no less with eight.
CALLS_AT_A_TIME = 4
# Per partition, so that one with thousands of records does not block the others.
LOOK_AHEAD = 32
ASK_AGAIN_AFTER_S = 1.0
LATE_S = 5.0
# Records that may wait in a partition before it is paused.
MAX_RECORDS = 1_000
MAX_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Waiting:
    record: Record
    # None for a record that waits only for those before it.
    schema_id: int | None
    answered: bool = False


@dataclass(slots=True)
class Queue:
    waiting: deque[Waiting] = field(default_factory=deque)
    size: int = 0


class Lookups:
    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._pool = ThreadPoolExecutor(CALLS_AT_A_TIME, "registry")
        self._queues: dict[int, Queue] = {}
        # By schema id, with the time of the request.
        self._asked: dict[int, tuple[Future[None], float]] = {}
        # Why the registry gives no answer, and when the next request may be made.
        self._away = ""
        self._ask_again_at = 0.0

    def keeps(self, record: Record) -> bool:
        """Queue the record if it must wait for its schema or for a record before it."""
        schema_id = self._unknown_schema(record)
        queue = self._queues.get(record.partition)
        if queue is None:
            if schema_id is None:
                return False
            queue = self._queues[record.partition] = Queue()
        queue.waiting.append(Waiting(record, schema_id))
        queue.size += len(record.value or b"")
        self._ask(queue)
        return True

    def work_off(self, judge: Callable[[Record], None]) -> None:
        """Pass on records that need not wait any more, in order.

        When `judge` raises RegistryUnavailable, the record keeps waiting.
        """
        answered = self._gather()
        for partition, queue in list(self._queues.items()):
            for item in islice(queue.waiting, LOOK_AHEAD):
                item.answered = item.answered or item.schema_id in answered
            try:
                self._hand_on(queue, judge)
            except RegistryUnavailable as error:
                queue.waiting[0].answered = False
                self._is_away(error)
            if queue.waiting:
                self._ask(queue)
            else:
                del self._queues[partition]

    def is_full(self, partition: int) -> bool:
        queue = self._queues.get(partition)
        return queue is not None and (len(queue.waiting) >= MAX_RECORDS or queue.size >= MAX_BYTES)

    def drop(self, partition: int) -> None:
        self._queues.pop(partition, None)

    def waits_for(self, partition: int) -> str:
        queue = self._queues.get(partition)
        if queue is None:
            return ""
        return self._away or f"the schema registry's answer on id {queue.waiting[0].schema_id}"

    def waiting_for(self) -> str:
        """Why the registry gives no answer, also while a request is slow."""
        if self._away or not self._asked:
            return self._away
        schema_id, (_, at) = next(iter(self._asked.items()))
        waited_s = time.monotonic() - at
        if waited_s < LATE_S:
            return ""
        return f"the schema registry's answer on id {schema_id}, for {waited_s:.0f} s"

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _unknown_schema(self, record: Record) -> int | None:
        try:
            schema_id = self._codec.schema_id_of(record.value or b"")
        except DecodeError:
            return None
        return None if self._codec.knows(schema_id) else schema_id

    def _hand_on(self, queue: Queue, judge: Callable[[Record], None]) -> None:
        until = time.monotonic() + TURN_S
        while queue.waiting and self._may_go(queue.waiting[0]) and time.monotonic() <= until:
            record = queue.waiting[0].record
            judge(record)
            queue.waiting.popleft()
            queue.size -= len(record.value or b"")

    def _may_go(self, item: Waiting) -> bool:
        return item.schema_id is None or item.answered or self._codec.knows(item.schema_id)

    def _ask(self, queue: Queue) -> None:
        if time.monotonic() < self._ask_again_at:
            return
        for item in islice(queue.waiting, LOOK_AHEAD):
            if item.schema_id in self._asked or self._may_go(item):
                continue
            assert item.schema_id is not None
            asked = self._pool.submit(self._codec.look_up, item.schema_id)
            self._asked[item.schema_id] = asked, time.monotonic()

    def _gather(self) -> set[int]:
        """The ids that the registry has answered."""
        done = {schema_id: asked for schema_id, (asked, _) in self._asked.items() if asked.done()}
        answered = set()
        for schema_id, asked in done.items():
            del self._asked[schema_id]
            error = asked.exception()
            if isinstance(error, RegistryUnavailable):
                self._is_away(error)
            else:
                # An answer that is an error surfaces when the record is decoded.
                self._away = ""
                answered.add(schema_id)
        return answered

    def _is_away(self, error: RegistryUnavailable) -> None:
        self._away = str(error)
        self._ask_again_at = time.monotonic() + ASK_AGAIN_AFTER_S
