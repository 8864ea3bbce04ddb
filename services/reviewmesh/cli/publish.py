"""`reviewmesh publish`: reviews from lines of JSON onto the raw topic."""

from __future__ import annotations

import io
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException, Producer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from reviewmesh.cli.connection import Connection, connect
from reviewmesh.cli.errors import CannotReach, CommandFailed
from reviewmesh.cli.render import err
from reviewmesh.runtime.partitioning import partition_of
from reviewmesh.runtime.record import TRACEPARENT
from reviewmesh.runtime.tracing import new_traceparent

RAW = "reviews.raw"
STDIN = "-"
# Bytes that are no UTF-8 spoil their line, not the file.
ERRORS = "surrogateescape"
SOURCE = "cli"
TEXT_FIELDS = ("business_id", "text", "title", "language", "source", "author")
FIELDS = ("review_id", *TEXT_FIELDS, "stars", "created_at", "attributes")
FLUSH_TIMEOUT_S = 30.0
QUEUE_FULL_TIMEOUT_S = 30.0


class NoReview(ValueError):
    """A line that holds no review."""


@dataclass
class Outcome:
    """What became of the lines; `places` are the partitions and offsets that were acknowledged."""

    places: list[tuple[int, int]] = field(default_factory=list)
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def publish(
    file: Annotated[str, typer.Argument(help="A file of one review a line, or - for stdin.")],
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="At most this many reviews a second.")
    ] = None,
) -> None:
    """Publish reviews; a generated id is printed. A line that is no review is reported."""
    with _lines(file) as lines:
        connection = connect()
        outcome = publish_lines(connection, lines, rate, print)
    err.print(f"{len(outcome.places)} published, {outcome.refused} refused", highlight=False)
    if outcome.failures:
        raise CommandFailed(
            f"{len(outcome.failures)} reviews were not acknowledged, the first: "
            f"{outcome.failures[0]}; publish them again"
        )
    if outcome.refused:
        raise typer.Exit(1)


def publish_lines(
    connection: Connection,
    lines: Iterable[str],
    rate: float | None,
    on_generated: Callable[[str], None],
) -> Outcome:
    """Publish what the lines hold and wait until the broker has acknowledged all of it."""
    codec, partitions = connection.codec(RAW), connection.partitions(RAW)
    producer = make_producer(connection)
    outcome = Outcome()

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            outcome.failures.append(error.str())
        else:
            outcome.places.append((message.partition(), message.offset()))

    for number, line in _paced(enumerate(lines, 1), rate):
        if not line.strip():
            continue
        try:
            review, generated = parse(line, _now_ms())
            key = review["review_id"].encode()
            send(
                producer,
                connection.topic(RAW),
                partition_of(key, partitions),
                key,
                codec.encode(review),
                [(TRACEPARENT, new_traceparent())],
                delivered,
            )
        except (NoReview, UnicodeEncodeError, KafkaException) as error:
            outcome.refused += 1
            err.print(f"line {number}: {_reason(error)}", style="red", markup=False)
            continue
        if generated:
            on_generated(review["review_id"])
    flush(producer)
    return outcome


def make_producer(connection: Connection) -> Producer:
    """Idempotent, so that a retry of its own writes nothing twice or out of order."""
    return Producer(
        {
            "linger.ms": "5",
            "compression.type": "lz4",
            "message.max.bytes": "16777216",
            "message.timeout.ms": "30000",
            "log_level": "0",
            **connection.settings.kafka.as_librdkafka(),
            "enable.idempotence": "true",
        }
    )


def send(
    producer: Producer,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    on_delivery: Callable[[Any, Any], None],
) -> None:
    """Produce; a full queue is waited for. Raises CannotReach when it stays full."""
    anyhow: Any = producer
    deadline = time.monotonic() + QUEUE_FULL_TIMEOUT_S
    while True:
        try:
            anyhow.produce(
                topic,
                key=key,
                value=value,
                partition=partition,
                headers=headers,
                on_delivery=on_delivery,
            )
            anyhow.poll(0)
            return
        except BufferError:
            if time.monotonic() > deadline:
                raise CannotReach(
                    f"the broker took nothing for {QUEUE_FULL_TIMEOUT_S:g} s; see `reviewmesh ps`"
                ) from None
            anyhow.poll(0.1)


def flush(producer: Producer) -> None:
    """Raises CannotReach when the broker does not acknowledge in time."""
    left = producer.flush(FLUSH_TIMEOUT_S)
    if left:
        raise CannotReach(
            f"{left} records were not acknowledged within {FLUSH_TIMEOUT_S:g} s; "
            "see `reviewmesh ps`"
        )


def parse(line: str, now_ms: int) -> tuple[dict[str, Any], bool]:
    """The review of a line, and whether its id is a new one. Raises NoReview."""
    try:
        content = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise NoReview(f"expected a review as JSON, got {line.strip()[:60]!r} ({error})") from error
    if not isinstance(content, dict):
        raise NoReview(f"expected a JSON object, got {type(content).__name__}")
    unknown = sorted(set(content) - set(FIELDS))
    if unknown:
        raise NoReview(f"unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
    review_id = content.get("review_id")
    if review_id is not None and (not isinstance(review_id, str) or not review_id):
        raise NoReview(f"review_id: expected text that is not empty, got {review_id!r}")
    review: dict[str, Any] = {name: _text(content, name) for name in TEXT_FIELDS}
    if review["text"] is None:
        raise NoReview("text: expected the review's text, got nothing")
    review["review_id"] = review_id or str(uuid.uuid4())
    review["source"] = review["source"] or SOURCE
    review["stars"] = _stars(content.get("stars"))
    review["created_at"] = _created_at(content.get("created_at"), now_ms)
    review["attributes"] = _attributes(content.get("attributes"))
    return review, review_id is None


def _text(content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise NoReview(f"{name}: expected text, got {value!r:.60}")
    return value


def _stars(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoReview(f"stars: expected a number, got {value!r:.60}")
    return float(value)


def _created_at(value: Any, now_ms: int) -> int:
    if value is None:
        return now_ms
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62:
        return value
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise NoReview(
            f"created_at: expected ISO 8601 or milliseconds since 1970, got {value!r:.60}"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _attributes(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise NoReview(f"attributes: expected names with texts, got {value!r:.60}")
    return dict(value)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "expected Unicode text, got bytes that are no UTF-8 or half of a surrogate pair"
    if isinstance(error, KafkaException):
        return str(error.args[0].str())
    return str(error)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _paced(lines: Iterable[tuple[int, str]], rate: float | None) -> Iterator[tuple[int, str]]:
    due = time.monotonic()
    for item in lines:
        if rate is not None:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 1 / rate) + 1 / rate
        yield item


@contextmanager
def _lines(file: str) -> Iterator[Iterable[str]]:
    """The lines, behind a progress bar where a terminal shows one."""
    if file == STDIN:
        yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors=ERRORS, newline="\n")
        return
    columns = (TextColumn("publishing"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        try:
            opened = progress.open(file, "r", encoding="utf-8", errors=ERRORS, newline="\n")
        except OSError as error:
            raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from error
        with opened:
            yield opened
