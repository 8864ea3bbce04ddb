"""Does answers again: infers the requests of campaigns while live reviews are not late.

A request holds the enriched review that it was made from, and the answer holds it too. So the
joiner merges the two without reading another topic.
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
from reviewmesh.enrich.results import (
    UnusableAnswer,
    failure_fields,
    lineage_of_answer,
    result_fields,
)
from reviewmesh.kafka.record import (
    CAMPAIGN,
    Output,
    Record,
    Unavailable,
    Unit,
    kept_headers,
)
from reviewmesh_schemas.names import REPROCESS, REPROCESSED, TASKS

# Requests in flight per process: enough for the free capacity of a few workers.
MAX_IN_FLIGHT = 256
# Another thread reads the campaign's record, so requests may be read before it.
CAMPAIGN_WAIT_S = 60.0
# Fields that an answer copies from its request.
COPIED_FIELDS = (
    "review_id",
    "campaign",
    "task",
    "enriched_offset",
    "enriched",
    "enriched_since",
)


class InvalidRequest(ValueError):
    """A record is no valid request; `cause` is that of its dead letter."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request in flight.

    `generation` tells it from the same offset after the partition was opened again.
    """

    record: Record
    request: dict[str, Any]
    enriched: dict[str, Any]
    generation: int


@dataclass(slots=True)
class RequestPartition:
    generation: int
    # Offsets in flight, in order: the first is the oldest.
    open: dict[int, None] = field(default_factory=dict)
    # The request that waits for its campaign or for live reviews. Meanwhile the input is paused.
    held: PendingRequest | None = None
    held_since: float = 0.0


@dataclass(frozen=True, slots=True)
class ReprocessCodecs:
    request: Codec
    enriched: Codec
    result: Codec
    answer: Codec

    def prepare(self) -> None:
        """Raises RegistryUnavailable."""
        for codec in (self.request, self.enriched, self.result, self.answer):
            codec.prepare()


class Reprocessing:
    """The requests of one task. Used by the polling thread."""

    def __init__(
        self,
        task: str,
        codecs: ReprocessCodecs,
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
        # Created for the first request, because most meshes never have a campaign.
        self._client: InferenceClient | None = None
        self._partitions: dict[int, RequestPartition] = {}
        self._units: list[Unit] = []
        self._live_late_reason = ""
        # Pre-create labels, so that rate() sees the first increment.
        for outcome in ("cancelled", "answered"):
            metrics.REPROCESS_REQUESTS.labels(task, outcome)

    def load(self) -> None:
        """Raises Unavailable."""
        try:
            self._codecs.prepare()
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error

    def open(self, partition: int, generation: int) -> None:
        self._partitions[partition] = RequestPartition(generation)

    def close(self, partition: int) -> None:
        closed = self._partitions.pop(partition, None)
        if closed is None:
            return
        if self._client is not None:
            generation = closed.generation
            self._client.cancel(
                lambda token: isinstance(token, PendingRequest) and token.generation == generation
            )
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        """Raises InvalidRequest, and Unavailable."""
        try:
            request = self._codecs.request.decode_ours(record.value or b"")
            if request["task"] not in TASKS:
                raise InvalidRequest("INVALID", f"expected a request for one of {', '.join(TASKS)}")
            if request["task"] != self._task:
                self._finish(record)
                return
            enriched = self._codecs.enriched.decode_ours(request["enriched"] or b"")
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        except DecodeError as error:
            raise InvalidRequest(error.cause, str(error)) from error
        if enriched["review_id"] != request["review_id"]:
            raise InvalidRequest("INVALID", "expected the enriched review of the same review_id")
        partition = self._partitions[record.partition]
        partition.open[record.offset] = None
        self._campaigns.follow()
        partition.held = PendingRequest(record, request, enriched, partition.generation)
        partition.held_since = self._clock()
        self._try_held(partition)

    def poll(self, oldest_live_ms: int | None) -> list[Unit]:
        """`oldest_live_ms`: when the oldest live review in flight was accepted, in milliseconds
        since 1970; None without one.
        """
        self._live_late_reason = self._live_lateness(oldest_live_ms)
        for partition in self._partitions.values():
            if partition.held is not None:
                self._try_held(partition)
        for item, answer in self._completed():
            pending = item.token
            assert isinstance(pending, PendingRequest)
            partition_of = self._partitions.get(pending.record.partition)
            if partition_of is not None and partition_of.generation == pending.generation:
                self._answered(pending, answer)
        units, self._units = self._units, []
        return units

    def blocks(self, partition: int) -> bool:
        """Whether no further request of the partition can be taken now."""
        opened = self._partitions.get(partition)
        held = opened is not None and opened.held is not None
        return held or bool(self._live_late_reason) or self._in_flight() >= MAX_IN_FLIGHT

    def waits_for(self, partition: int) -> str:
        """Why the partition's oldest request is not answered yet; empty if it is being inferred."""
        opened = self._partitions.get(partition)
        if opened is None:
            return ""
        oldest = next(iter(opened.open), None)
        if opened.held is not None and oldest == opened.held.record.offset:
            return self._why_held(opened.held)
        if oldest is None or self._client is None:
            return ""
        return self._client.waits_for(partition, oldest)

    def stop(self) -> None:
        self._campaigns.stop()
        if self._client is not None:
            self._client.close()

    # -- work --------------------------------------------------------------------------------

    def _live_lateness(self, oldest_live_ms: int | None) -> str:
        """Why requests have to wait for live reviews; empty if they need not."""
        age_s = 0.0 if oldest_live_ms is None else self._clock() - oldest_live_ms / 1000
        if age_s <= self._live_late_s:
            return ""
        return f"live reviews come first: the oldest has waited for {age_s:.0f} s"

    def _in_flight(self) -> int:
        return sum(len(partition.open) for partition in self._partitions.values())

    def _completed(self) -> Iterator[tuple[WorkItem, Answer]]:
        return iter(() if self._client is None else self._client.completed())

    def _why_held(self, pending: PendingRequest) -> str:
        campaign = pending.request["campaign"]
        verdict = self._campaigns.verdict(campaign)
        if verdict == "unread":
            return "reviews.campaigns is not read to its end yet"
        if verdict == "unknown":
            return f"the record of campaign {campaign} was not read yet"
        if verdict == "wait":
            return f"campaign {campaign} is paused"
        return self._live_late_reason

    def _try_held(self, partition: RequestPartition) -> None:
        """Send or drop the held request, if its campaign and live reviews allow it now."""
        pending = partition.held
        assert pending is not None
        verdict = self._campaigns.verdict(pending.request["campaign"])
        now = self._clock()
        # The clock may have been set back.
        partition.held_since = min(partition.held_since, now)
        if verdict == "unknown" and now - partition.held_since > CAMPAIGN_WAIT_S:
            verdict = "drop"
        if verdict == "drop":
            partition.held = None
            counted = partial(self._count, "cancelled")
            self._finish(pending.record, (), counted)
        elif verdict == "go" and not self._live_late_reason:
            partition.held = None
            self._submit(pending)

    def _submit(self, pending: PendingRequest) -> None:
        if self._client is None:
            self._client = self._make_client()
            self._client.start()
        self._client.submit([WorkItem.of(pending, pending.record, pending.enriched)])

    def _answered(self, pending: PendingRequest, answer: Answer) -> None:
        try:
            if answer.output is None:
                raise UnusableAnswer(answer.error or "the worker gave no reason")
            text = pending.enriched["text"] or ""
            output = self._answer(pending, result_fields(self._task, text, answer))
        except Exception as error:  # noqa: BLE001 - an invalid answer fails only this request
            reason = (
                str(error)
                if isinstance(error, UnusableAnswer)
                else f"{type(error).__name__}: {error}"
            )
            lineage = lineage_of_answer(answer)
            output = self._answer(pending, failure_fields(reason, lineage))
        self._finish(pending.record, (output,), partial(self._count, "answered"))

    def _answer(self, pending: PendingRequest, fields: dict[str, Any]) -> Output:
        """Raises UnusableAnswer if the record is too large, which a failure never is."""
        request, enriched, record = pending.request, pending.enriched, pending.record
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
                **{name: request[name] for name in COPIED_FIELDS},
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
            raise UnusableAnswer(
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
