"""Answers done again: decoded, and joined once it is known what is newer than them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from reviewmesh.avro.codec import Codec
from reviewmesh.join.newer import REVIEWS_AT_MOST, Newer
from reviewmesh.join.pipeline import Again, Emission, PartitionJoin
from reviewmesh.kafka.readback import ReadBack
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Headers, Record, Unavailable
from reviewmesh_schemas.names import ACCEPTED, ENRICHED, TASKS

RETRY_S = 1.0
# Without an answer for so long no campaign goes on.
FORGOTTEN_AFTER_S = 3_600.0


class NoAnswer(ValueError):
    """A record that decodes and is no answer of the mesh's."""


@dataclass(frozen=True, slots=True)
class AnswerCodecs:
    answer: Codec
    enriched: Codec
    results: dict[str, Codec]

    def decode(self, record: Record, headers: Headers) -> Again:
        """Raises DecodeError, NoAnswer and RegistryUnavailable."""
        content = self.answer.decode_ours(record.value or b"")
        task = content["task"]
        if task not in TASKS:
            raise NoAnswer(f"expected an answer for one of {', '.join(TASKS)}")
        enriched = self.enriched.decode_ours(content["enriched"])
        result = self.results[task].decode_ours(content["result"])
        if not content["review_id"] == enriched["review_id"] == result["review_id"]:
            raise NoAnswer("expected the enriched review and the result of the same review_id")
        if missing := [name for name in TASKS if name not in enriched["tasks"]]:
            raise NoAnswer(f"expected an enriched review with every task, got none of {missing}")
        if enriched["timings"] is None:
            raise NoAnswer("expected an enriched review with timings")
        return Again(
            record.offset,
            task,
            enriched,
            result,
            headers,
            content["accepted_since"],
            content["enriched_since"],
        )


class ReadingBack:
    """Reads in a thread what was accepted and published since a campaign chose."""

    def __init__(self, reader: PartitionReader, partition: int, newer: Newer) -> None:
        self._ids: set[int] = set()
        self._outcome: SimpleQueue[str] = SimpleQueue()
        positions = {
            (ACCEPTED, partition): newer.accepted_since,
            (ENRICHED, partition): newer.enriched_since,
        }
        self._readback = ReadBack(reader, positions, self._take)
        self._again_at: float | None = None
        self._start()

    def result(self, now: float) -> set[int] | None:
        """None while it reads; it goes on where it was interrupted."""
        if self._again_at is not None:
            if now >= self._again_at:
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
        return self._ids

    def _start(self) -> None:
        threading.Thread(target=self._run, name="read-newer", daemon=True).start()

    def _run(self) -> None:
        try:
            self._readback.go_on()
            self._outcome.put("")
        except Unavailable as error:
            self._outcome.put(str(error) or "unavailable")

    def _take(self, record: Record) -> None:
        """Both topics are keyed by review_id."""
        if len(self._ids) < REVIEWS_AT_MOST:
            self._ids.add(hash((record.key or b"").decode(errors="replace")))


class Reprocessed:
    """Of one partition: the answers in hand, and the reading that they wait for."""

    def __init__(self, reader: PartitionReader, partition: int, join: PartitionJoin) -> None:
        self._reader = reader
        self._partition = partition
        self._join = join
        self._waiting: deque[Again] = deque()
        self._reading: ReadingBack | None = None
        # Published from here and not committed yet: what is read back may lack them.
        self._uncommitted: Counter[str] = Counter()
        self._last_at = 0.0

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def published(self, review_id: str) -> None:
        self._uncommitted[review_id] += 1

    def committed(self, review_id: str) -> None:
        self._uncommitted[review_id] -= 1
        if not self._uncommitted[review_id]:
            del self._uncommitted[review_id]

    def take(self, again: Again, now: float) -> list[Emission]:
        self._last_at = now
        self._waiting.append(again)
        return self.go_on(now)

    def go_on(self, now: float) -> list[Emission]:
        newer = self._join.newer
        if self._reading is not None:
            assert newer is not None
            ids = self._reading.result(now)
            if ids is None:
                return []
            newer.read_back(ids)
            self._reading = None
        emissions: list[Emission] = []
        while self._waiting:
            again = self._waiting[0]
            newer = self._join.newer
            if newer is None or not newer.covers(again.accepted_since, again.enriched_since):
                self._begin(again)
                break
            emissions.append(self._join.again(self._waiting.popleft(), now))
        if newer is not None and now - self._last_at > FORGOTTEN_AFTER_S and not self._waiting:
            self._join.newer = None
        return emissions

    def _begin(self, again: Again) -> None:
        # From here on the join adds what it sees.
        newer = self._join.newer = Newer(again.accepted_since, again.enriched_since)
        for review_id in self._uncommitted:
            newer.add(review_id)
        self._reading = ReadingBack(self._reader, self._partition, newer)
