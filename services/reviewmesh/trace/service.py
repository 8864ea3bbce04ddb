"""Follows what the mesh published, and sends the spans of the reviews that are to be traced.

At least once: offsets are committed when the endpoint has taken the spans, so a kill loses none.
Sent again, they have the same ids.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.contracts import Contracts
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.reader import record_of
from reviewmesh.kafka.record import TRACEPARENT, Record
from reviewmesh.kafka.tracing import context_at, context_of
from reviewmesh.process.own_work import OwnWork
from reviewmesh.process.startup import Startup
from reviewmesh.settings import Settings, WrongSetting
from reviewmesh.trace.choice import TraceChoice
from reviewmesh.trace.otlp import OtlpEndpoint
from reviewmesh.trace.spans import Span, span_of_call, span_of_dead_letter, spans_of_enriched
from reviewmesh_kit.settings import variable
from reviewmesh_schemas.names import DEAD_LETTER, ENRICHED, TASKS, TRACER_GROUP

POLL_S = 0.5
POLL_RECORDS = 500
COMMIT_EVERY_S = 2.0
CALL_TIMEOUT_S = 10.0
REGISTRY_AGAIN_S = 1.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
# An endpoint that refuses the same spans for so long may refuse them for ever.
DROPPED_AFTER_S = 600.0
CALLS_REMEMBERED = 10_000
DEAD = "dead letter"


class Stopped(Exception):
    """A stop was requested while records wait to be sent: the next start reads them again."""


class TracerService(OwnWork):
    """Runs until it is stopped."""

    def __init__(self, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
        """Raises WrongSetting without an endpoint."""
        if not settings.traces.endpoint:
            raise WrongSetting(
                f"{variable('traces', 'endpoint')}: expected an OTLP endpoint such as "
                "http://127.0.0.1:4318, got nothing"
            )
        self._settings = settings
        self._log = log
        self._contracts = Contracts(settings)
        self._enriched = self._contracts.codec(ENRICHED)
        self._letters = self._contracts.codec(DEAD_LETTER)
        super().__init__(Startup(settings, self._contracts, log))
        self._choice = TraceChoice(settings.traces.slow_s, settings.traces.share)
        self._endpoint = OtlpEndpoint(settings.traces, settings.prefix)
        self._positions: dict[tuple[str, int], int] = {}
        self._committed_at = 0.0
        # Calls whose span was sent; each is part of many reviews.
        self._calls: dict[tuple[int, int], None] = {}

    def close(self) -> None:
        self._endpoint.close()

    def _work(self) -> None:
        while not self._stop.is_set():
            replaced = self._settings.kafka.certificates.changes()
            consumer = self._subscribed()
            try:
                with suppress(Stopped):
                    while not self._stop.is_set() and not replaced.found():
                        self._turn(consumer)
                self._commit(consumer)
            finally:
                consumer.close()
        self.close()

    def _subscribed(self) -> Any:
        options = kafka.consumer_options(
            self._settings, f"{self._settings.prefix}{TRACER_GROUP}"
        ) | {
            "auto.offset.reset": "latest",
            "enable.partition.eof": "false",
        }
        consumer: Any = kafka.make_consumer(options, self._on_error)
        consumer.subscribe(
            [self._settings.prefix + topic for topic in (ENRICHED, DEAD_LETTER)],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        return consumer

    def _turn(self, consumer: Any) -> None:
        """Raises Stopped."""
        self._heartbeat = time.monotonic()
        messages = consumer.consume(POLL_RECORDS, POLL_S)
        spans: list[Span] = []
        reasons: list[str] = []
        read: dict[tuple[str, int], int] = {}
        for message in messages:
            if message.error() is not None:
                continue
            record = record_of(message.topic().removeprefix(self._settings.prefix), message)
            for reason, span in self._spans(consumer, record):
                spans.append(span)
                reasons.append(reason)
            read[message.topic(), message.partition()] = message.offset() + 1
        if spans:
            self._send(consumer, spans)
        for reason in reasons:
            metrics.SPANS.labels(reason).inc()
        self._positions |= read
        if time.monotonic() - self._committed_at >= COMMIT_EVERY_S:
            self._commit(consumer)

    def _spans(self, consumer: Any, record: Record) -> Iterator[tuple[str, Span]]:
        reason = DEAD if record.topic == DEAD_LETTER else self._choice.reason(record)
        if not reason or record.value is None:
            return
        context = context_of(record.header(TRACEPARENT)) or context_at(
            f"{record.topic}/{record.partition}/{record.offset}"
        )
        codec = self._letters if record.topic == DEAD_LETTER else self._enriched
        content = self._decoded(consumer, codec, record.value)
        if content is None:
            # The mesh did not write it.
            return
        if record.topic == DEAD_LETTER:
            yield reason, span_of_dead_letter(content, record, context)
            return
        for span in spans_of_enriched(content, record, context, reason):
            yield reason, span
        for task in TASKS:
            outcome = content["tasks"].get(task) or {}
            answered_ms = (content["timings"] or {}).get(f"{task}_at") or record.timestamp_ms
            call = span_of_call(task, outcome.get("lineage") or {}, answered_ms)
            if call is not None and self._is_new(call):
                yield reason, call

    def _decoded(self, consumer: Any, codec: Codec, value: bytes) -> Mapping[str, Any] | None:
        """None where it does not decode. Waits for the registry. Raises Stopped."""
        while True:
            try:
                content: Mapping[str, Any] | None = codec.decode_ours(value)
            except DecodeError:
                content = None
            except RegistryUnavailable as error:
                self._problem = str(error)
                self._wait(consumer, REGISTRY_AGAIN_S)
                continue
            self._problem = ""
            return content

    def _is_new(self, call: Span) -> bool:
        key = call.trace_id, call.span_id
        if key in self._calls:
            return False
        self._calls[key] = None
        if len(self._calls) > CALLS_REMEMBERED:
            del self._calls[next(iter(self._calls))]
        return True

    def _send(self, consumer: Any, spans: list[Span]) -> None:
        """Wait until the endpoint takes them, up to DROPPED_AFTER_S. Raises Stopped."""
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while not self._endpoint.send(spans):
            waited_s = time.monotonic() - began
            if waited_s > DROPPED_AFTER_S:
                self._log.error("spans are dropped: the endpoint takes none", spans=len(spans))
                metrics.SPANS_REFUSED.inc(len(spans))
                break
            self._problem = f"the OTLP endpoint at {self._settings.traces.endpoint} to take spans"
            self._log.warning("waiting", waiting_for=self._problem, for_s=round(waited_s))
            self._wait(consumer, pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self._problem = ""

    def _wait(self, consumer: Any, seconds: float) -> None:
        """Read nothing, and keep the membership meanwhile. Raises Stopped."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop.is_set():
            self._heartbeat = time.monotonic()
            if assigned := consumer.assignment():
                consumer.pause(assigned)
            for message in consumer.consume(1, POLL_S):
                if message.error() is None:
                    # It came before the pause: read it again afterwards.
                    consumer.seek(
                        TopicPartition(message.topic(), message.partition(), message.offset())
                    )
        if self._stop.is_set():
            raise Stopped
        if assigned := consumer.assignment():
            consumer.resume(assigned)

    # -- offsets -----------------------------------------------------------------------------

    def _commit(self, consumer: Any) -> None:
        self._committed_at = time.monotonic()
        offsets = [TopicPartition(*at, offset) for at, offset in self._positions.items()]
        if not offsets:
            return
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._log.warning("offsets are not committed yet", reason=error.args[0].str())
        else:
            self._positions.clear()

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Trace from the first start on: a week of old reviews would be traced at once.

        Where that is must be committed before anything is read, or a kill would move it.
        """
        try:
            found = consumer.committed(partitions, timeout=CALL_TIMEOUT_S)
            for at in found:
                if at.offset < 0:
                    at.offset = consumer.get_watermark_offsets(at, timeout=CALL_TIMEOUT_S)[1]
                    self._positions[at.topic, at.partition] = at.offset
        except KafkaException as error:
            self._log.warning("begins at the end", reason=error.args[0].str())
            consumer.incremental_assign(partitions)
            return
        consumer.incremental_assign(found)
        self._commit(consumer)

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._commit(consumer)
        self._lost(consumer, partitions)

    def _lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        for at in partitions:
            self._positions.pop((at.topic, at.partition), None)

    def _on_error(self, error: KafkaError) -> None:
        self._log.warning("kafka", code=error.name(), error=error.str())
