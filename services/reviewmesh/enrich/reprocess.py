"""Answers done again: requests of campaigns, worked on while live reviews leave room.

A request carries the enriched review that it was made from, and the answer carries it on: the
joiner puts the two together without looking anything up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.enrich.campaigns import Campaigns
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.results import Unusable, answered, failed, lineage_of_answer
from reviewmesh.kafka.record import (
    CAMPAIGN,
    Output,
    Record,
    Unavailable,
    Unit,
    kept_headers,
)
from reviewmesh_schemas.names import REPROCESS, REPROCESSED, TASKS

# Per process: enough to fill what live reviews leave free of a few workers.
ROOM = 256
# A campaign's record is written before its requests, and read by another thread.
UNKNOWN_FOR_S = 60.0
# What an answer takes over from its request.
CARRIED = (
    "review_id",
    "campaign",
    "task",
    "enriched_offset",
    "enriched",
    "enriched_since",
)


class NoRequest(ValueError):
    """A record that is no request; `cause` is that of its dead letter."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Again:
    """A request in hand; `life` tells it from the same offset read again later."""

    record: Record
    request: dict[str, Any]
    enriched: dict[str, Any]
    life: int


@dataclass(slots=True)
class Partition:
    life: int
    # Offsets in hand, in order: the first is the oldest.
    open: dict[int, None] = field(default_factory=dict)
    # The request that waits for its campaign to go on, or for live reviews; the input is blocked.
    held: Again | None = None
    held_since: float = 0.0


@dataclass(frozen=True, slots=True)
class Codecs:
    request: Codec
    enriched: Codec
    result: Codec
    answer: Codec

    def prepare(self) -> None:
        """Raises RegistryUnavailable."""
        for codec in (self.request, self.enriched, self.result, self.answer):
            codec.prepare()


class Reprocessing:
    """One task's requests. Used by the polling thread."""

    def __init__(
        self,
        task: str,
        codecs: Codecs,
        campaigns: Campaigns,
        make_client: Callable[[], InferenceClient],
        live_late_s: float,
        clock: Clock,
        max_answer_bytes: int,
    ) -> None:
        self._task = task
        self._codecs = codecs
        self._campaigns = campaigns
        self._make_client = make_client
        self._live_late_s = live_late_s
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes
        # Most meshes never have a campaign: no connections are kept for one.
        self._client: InferenceClient | None = None
        self._partitions: dict[int, Partition] = {}
        self._units: list[Unit] = []
        self._live_is_late = ""
        for outcome in ("cancelled", "answered"):
            metrics.REPROCESS_REQUESTS.labels(task, outcome)

    def load(self) -> None:
        """Raises Unavailable."""
        try:
            self._codecs.prepare()
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error

    def open(self, partition: int, life: int) -> None:
        self._partitions[partition] = Partition(life)

    def close(self, partition: int) -> None:
        closed = self._partitions.pop(partition, None)
        if closed is None:
            return
        if self._client is not None:
            life = closed.life
            self._client.cancel(lambda token: isinstance(token, Again) and token.life == life)
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        """Raises NoRequest, and Unavailable."""
        try:
            request = self._codecs.request.decode_ours(record.value or b"")
            if request["task"] not in TASKS:
                raise NoRequest("INVALID", f"expected a request for one of {', '.join(TASKS)}")
            if request["task"] != self._task:
                self._finish(record)
                return
            enriched = self._codecs.enriched.decode_ours(request["enriched"] or b"")
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        except DecodeError as error:
            raise NoRequest(error.cause, str(error)) from error
        if enriched["review_id"] != request["review_id"]:
            raise NoRequest("INVALID", "expected the enriched review of the same review_id")
        partition = self._partitions[record.partition]
        partition.open[record.offset] = None
        self._campaigns.follow()
        partition.held = Again(record, request, enriched, partition.life)
        partition.held_since = self._clock()
        self._go_on(partition)

    def poll(self, oldest_live_ms: int | None) -> list[Unit]:
        """`oldest_live_ms`: when the oldest live review in hand was accepted; None without one."""
        self._live_is_late = self._why_late(oldest_live_ms)
        for partition in self._partitions.values():
            if partition.held is not None:
                self._go_on(partition)
        for item, answer in self._completed():
            again = item.token
            assert isinstance(again, Again)
            partition_of = self._partitions.get(again.record.partition)
            if partition_of is not None and partition_of.life == again.life:
                self._answered(again, answer)
        units, self._units = self._units, []
        return units

    def blocks(self, partition: int) -> bool:
        of = self._partitions.get(partition)
        held = of is not None and of.held is not None
        return held or bool(self._live_is_late) or self._in_hand() >= ROOM

    def waits_for(self, partition: int) -> str:
        """What keeps the partition's oldest request from being answered; empty when nothing."""
        of = self._partitions.get(partition)
        if of is None:
            return ""
        oldest = next(iter(of.open), None)
        if of.held is not None and oldest == of.held.record.offset:
            return self._why_held(of.held)
        if oldest is None or self._client is None:
            return ""
        return self._client.waits_for(partition, oldest)

    def stop(self) -> None:
        self._campaigns.stop()
        if self._client is not None:
            self._client.close()

    # -- work --------------------------------------------------------------------------------

    def _why_late(self, oldest_live_ms: int | None) -> str:
        """Why live reviews come first now; empty when they do not."""
        age_s = 0.0 if oldest_live_ms is None else self._clock() - oldest_live_ms / 1000
        if age_s <= self._live_late_s:
            return ""
        return f"live reviews come first: the oldest has waited for {age_s:.0f} s"

    def _in_hand(self) -> int:
        return sum(len(partition.open) for partition in self._partitions.values())

    def _completed(self) -> Iterator[tuple[WorkItem, Answer]]:
        return iter(() if self._client is None else self._client.completed())

    def _why_held(self, again: Again) -> str:
        campaign = again.request["campaign"]
        verdict = self._campaigns.verdict(campaign)
        if verdict == "unread":
            return "reviews.campaigns has not been read to its end"
        if verdict == "unknown":
            return f"the record of campaign {campaign} has not come"
        if verdict == "wait":
            return f"campaign {campaign} is paused"
        return self._live_is_late

    def _go_on(self, partition: Partition) -> None:
        """Work on the request that is held, if it may go on now."""
        again = partition.held
        assert again is not None
        verdict = self._campaigns.verdict(again.request["campaign"])
        now = self._clock()
        # The clock may have been set back.
        partition.held_since = min(partition.held_since, now)
        if verdict == "unknown" and now - partition.held_since > UNKNOWN_FOR_S:
            verdict = "drop"
        if verdict == "drop":
            partition.held = None
            counted = partial(self._count, "cancelled")
            self._finish(again.record, (), counted)
        elif verdict == "go" and not self._live_is_late:
            partition.held = None
            self._submit(again)

    def _submit(self, again: Again) -> None:
        if self._client is None:
            self._client = self._make_client()
            self._client.start()
        self._client.submit([WorkItem.of(again, again.record, again.enriched)])

    def _answered(self, again: Again, answer: Answer) -> None:
        try:
            if answer.output is None:
                raise Unusable(answer.error or "the worker gave no reason")
            text = again.enriched["text"] or ""
            output = self._answer(again, answered(self._task, text, answer))
        except Exception as error:  # noqa: BLE001 - whatever a worker answers costs this request
            words = (
                str(error) if isinstance(error, Unusable) else f"{type(error).__name__}: {error}"
            )
            lineage = lineage_of_answer(answer)
            output = self._answer(again, failed(words, lineage))
        self._finish(again.record, (output,), partial(self._count, "answered"))

    def _answer(self, again: Again, fields: dict[str, Any]) -> Output:
        """Raises Unusable where it is too large, which a failure never is."""
        request, enriched, record = again.request, again.enriched, again.record
        now = milliseconds(self._clock())
        result = {
            "review_id": request["review_id"],
            "content_hash": enriched["content_hash"],
            "accepted_partition": enriched["accepted_partition"],
            "accepted_offset": enriched["accepted_offset"],
            "produced_at": now,
            "language": enriched["language"],
            **fields,
        }
        value = self._codecs.answer.encode(
            {
                **{name: request[name] for name in CARRIED},
                "result": self._codecs.result.encode(result),
                "produced_at": now,
            }
        )
        output = Output(
            REPROCESSED,
            record.partition,
            request["review_id"].encode(),
            value,
            (*kept_headers(record.headers), (CAMPAIGN, request["campaign"].encode())),
        )
        if (size := output.size()) > self._max_answer_bytes:
            raise Unusable(
                f"expected an answer of at most {self._max_answer_bytes:,} bytes, got {size:,}"
            )
        return output

    def _finish(
        self,
        record: Record,
        outputs: tuple[Output, ...] = (),
        committed: Callable[[], None] | None = None,
    ) -> None:
        self._partitions[record.partition].open.pop(record.offset, None)
        finished = ((REPROCESS, record.offset),)
        self._units.append(Unit(record.partition, finished, outputs, committed))

    def _count(self, outcome: str) -> None:
        metrics.REPROCESS_REQUESTS.labels(self._task, outcome).inc()
