"""Answers done again: decoded, and joined once newer revisions of their reviews are known."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import is_over
from reviewmesh.join.newer import Newer
from reviewmesh.join.pipeline import PartitionJoin
from reviewmesh.join.state import AnswerAgain, Emission
from reviewmesh.kafka.readback import ReadBack
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Headers, Record, Unavailable
from reviewmesh_schemas.names import ENRICHED, TASKS

RETRY_S = 1.0
# After so long without an answer, no campaign is running.
FORGOTTEN_AFTER_S = 3_600.0


class NoAnswer(ValueError):
    """A record that decodes, but that no enricher wrote."""


@dataclass(frozen=True, slots=True)
class AnswerCodecs:
    answer: Codec
    enriched: Codec
    results: dict[str, Codec]

    def decode(self, record: Record, headers: Headers) -> AnswerAgain:
        """Raises DecodeError, NoAnswer and RegistryUnavailable."""
        content = self.answer.decode_ours(record.value or b"")
        task = content["task"]
        if task not in TASKS:
            raise NoAnswer(f"expected an answer for one of {', '.join(TASKS)}")
        enriched = self.enriched.decode_ours(content["enriched"] or b"")
        result = self.results[task].decode_ours(content["result"] or b"")
        if not content["review_id"] == enriched["review_id"] == result["review_id"]:
            raise NoAnswer("expected the enriched review and the result of the same review_id")
        if enriched["accepted_partition"] != record.partition:
            raise NoAnswer(
                f"expected an enriched review of partition {record.partition}, got one of "
                f"{enriched['accepted_partition']}"
            )
        if missing := [name for name in TASKS if name not in enriched["tasks"]]:
            raise NoAnswer(f"expected an enriched review with every task, got none of {missing}")
        if enriched["timings"] is None:
            raise NoAnswer("expected an enriched review with timings")
        return AnswerAgain(
            record.offset,
            task,
            enriched,
            result,
            headers,
            content["enriched_since"],
        )


class ReadingBack:
    """Reads in a thread what was published since a campaign chose its reviews."""

    def __init__(self, reader: PartitionReader, codec: Codec, partition: int, newer: Newer) -> None:
        self._codec = codec
        self._found = Newer(newer.since)
        self._outcome: SimpleQueue[str] = SimpleQueue()
        self._readback = ReadBack(reader, {(ENRICHED, partition): newer.since}, self._take)
        self._again_at: float | None = None
        self._start()

    def result(self, now: float) -> Newer | None:
        """None while it reads; continues where it was interrupted."""
        if self._again_at is not None:
            if is_over(self._again_at, now, RETRY_S):
                self._again_at = None
                self._start()
            return None
        try:
            problem = self._outcome.get_nowait()
        except Empty:
            return None
        if problem:
            self._again_at = now + RETRY_S
            return None
        return self._found

    def _start(self) -> None:
        threading.Thread(target=self._run, name="read-newer", daemon=True).start()

    def _run(self) -> None:
        try:
            self._readback.go_on()
            self._outcome.put("")
        except (Unavailable, RegistryUnavailable) as error:
            self._outcome.put(str(error) or "unavailable")

    def _take(self, record: Record) -> None:
        try:
            enriched = self._codec.decode_ours(record.value or b"")
        except DecodeError:
            # No joiner wrote it.
            return
        self._found.add(enriched["review_id"], enriched["revision"])


class Reprocessed:
    """The waiting answers of one partition, and the read that they wait for."""

    def __init__(
        self, reader: PartitionReader, codec: Codec, partition: int, join: PartitionJoin
    ) -> None:
        self._reader = reader
        self._codec = codec
        self._partition = partition
        self._join = join
        self._waiting: deque[AnswerAgain] = deque()
        self._reading: ReadingBack | None = None
        # Revisions that this process published and that are not committed yet: the topic may lack
        # them.
        self._uncommitted: deque[tuple[str, int]] = deque()
        self._last_at = 0.0

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def published(self, review_id: str, revision: int) -> None:
        self._uncommitted.append((review_id, revision))

    def committed(self, revision: int) -> None:
        """Revisions of a partition are committed in order."""
        while self._uncommitted and self._uncommitted[0][1] <= revision:
            self._uncommitted.popleft()

    def take(self, again: AnswerAgain, now: float) -> list[Emission]:
        self._last_at = now
        self._waiting.append(again)
        return self.go_on(now)

    def go_on(self, now: float) -> list[Emission]:
        if self._reading is not None:
            found = self._reading.result(now)
            if found is None:
                return []
            self._reading = None
            assert self._join.newer is not None
            self._join.newer.take_in(found)
        emissions: list[Emission] = []
        while self._waiting:
            again, newer = self._waiting[0], self._join.newer
            if newer is None or newer.since > again.enriched_since:
                self._begin(again)
                break
            emissions.append(self._join.again(self._waiting.popleft(), now))
        if not self._waiting and now - self._last_at > FORGOTTEN_AFTER_S:
            self._join.newer = None
        return emissions

    def _begin(self, again: AnswerAgain) -> None:
        # From here on the join adds what it publishes.
        newer = self._join.newer = Newer(again.enriched_since)
        for review_id, revision in self._uncommitted:
            newer.add(review_id, revision)
        self._reading = ReadingBack(self._reader, self._codec, self._partition, newer)
