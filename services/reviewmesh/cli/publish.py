"""`reviewmesh publish`: publishes reviews from JSON lines to the raw topic."""

from __future__ import annotations

import codecs
import json
import math
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, BinaryIO

import typer
from confluent_kafka import KafkaException
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.terminal import err
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import TRACEPARENT
from reviewmesh.kafka.tracing import new_traceparent
from reviewmesh.query.connection import Connection, connect
from reviewmesh.query.sending import Sender
from reviewmesh.query.values import EPOCH
from reviewmesh_kit.printable import plain
from reviewmesh_schemas.names import RAW

STDIN = "-"
BYTE_ORDER_MARK = "\ufeff"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# JSON may encode each byte of the largest review as an escape of six characters.
MAX_LINE_BYTES = 8 * 1024 * 1024
# Today in another unit is out of this range: 1973 in milliseconds is the year 5138 in seconds.
LEAST_MS, LEAST_US, LEAST_NS = 10**11, 10**14, 10**17
SHOWN = 60
SOURCE = "cli"
TEXT_FIELDS = ("business_id", "text", "title", "language", "source", "author")
FIELDS = ("review_id", *TEXT_FIELDS, "stars", "created_at", "attributes")


class NoReview(ValueError):
    """A line that is no valid review."""


@dataclass
class PublishOutcome:
    """The outcome of all lines; `places`: acknowledged partitions and offsets."""

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
    outcome = PublishOutcome()
    with _lines(file) as lines:
        connection = connect()
        try:
            publish_lines(connection, lines, rate=rate, on_generated=print, outcome=outcome)
        # Also after Ctrl-C or when the broker goes away: acknowledged reviews stay published.
        finally:
            err.print(f"{len(outcome.places)} published, {outcome.refused} refused")
    if outcome.failures:
        raise CommandFailed(
            f"{len(outcome.failures)} reviews were not acknowledged, the first: "
            f"{outcome.failures[0]}; publish them again"
        )
    if outcome.refused:
        raise typer.Exit(1)


def publish_lines(
    connection: Connection,
    lines: Iterable[bytes],
    rate: float | None,
    on_generated: Callable[[str], None],
    outcome: PublishOutcome,
) -> None:
    """Publish the lines' reviews and wait until the broker has acknowledged them."""
    publisher = _Publisher(connection, outcome)
    try:
        for number, line in _paced(enumerate(lines, 1), rate):
            try:
                generated = publisher.publish(number, line)
            except (NoReview, KafkaException) as error:
                outcome.refused += 1
                reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
                err.print(f"line {number}: {plain(reason)}", style="red")
                continue
            if generated is not None:
                on_generated(generated)
    finally:
        publisher.sender.close()


class _Publisher:
    """Publishes lines to the raw topic and records acknowledgements in `outcome`."""

    def __init__(self, connection: Connection, outcome: PublishOutcome) -> None:
        self._outcome = outcome
        self._codec = connection.codec(RAW)
        self._partitions = connection.partitions(RAW)
        self._max_bytes = connection.contracts.max_bytes(RAW)
        self.sender = Sender(connection)

    def publish(self, number: int, line: bytes) -> str | None:
        """Returns the id if it generated one. Raises NoReview or KafkaException."""
        text = decoded(line)
        if not text:
            return None
        review, generated = parse(text, int(time.time() * 1000))
        key, value = review["review_id"].encode(), self._codec.encode(review)
        # The broker would reject the whole batch.
        if len(key) + len(value) > self._max_bytes:
            raise NoReview(
                f"expected a review of at most {self._max_bytes:,} bytes, got {len(value):,}"
            )

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self._outcome.failures.append(f"line {number}: {error.str()}")
            else:
                self._outcome.places.append((message.partition(), message.offset()))

        self.sender.send(
            RAW,
            partition=partition_of(key, self._partitions),
            key=key,
            value=value,
            headers=[(TRACEPARENT, new_traceparent())],
            on_delivery=delivered,
        )
        return review["review_id"] if generated else None


def decoded(line: bytes) -> str:
    """The text of a line without white space around it. Raises NoReview."""
    if len(line) > MAX_LINE_BYTES:
        raise NoReview(f"expected a line of at most {MAX_LINE_BYTES:,} bytes, got a longer one")
    if line.startswith(UTF_16):
        raise NoReview("expected UTF-8, got UTF-16; convert the file, such as with iconv")
    try:
        return line.decode().removeprefix(BYTE_ORDER_MARK).strip()
    except UnicodeDecodeError as error:
        raise NoReview(
            f"expected UTF-8, got the byte 0x{line[error.start]:02x} at position "
            f"{error.start + 1}; convert the file, such as with iconv"
        ) from error


def parse(line: str, now_ms: int) -> tuple[dict[str, Any], bool]:
    """The review of a line, and whether its id was generated. Raises NoReview."""
    content = _json_of(line)
    if not isinstance(content, dict):
        raise NoReview(f"expected a JSON object, got {type(content).__name__}")
    unknown = sorted(set(content) - set(FIELDS))
    if unknown:
        raise NoReview(f"unknown field {unknown[0]!r:.60}; expected one of {', '.join(FIELDS)}")
    review_id = content.get("review_id")
    if review_id is not None and (not isinstance(review_id, str) or not review_id):
        raise NoReview(f"review_id: expected text that is not empty, got {_shown(review_id)}")
    review: dict[str, Any] = {name: _text(content, name) for name in TEXT_FIELDS}
    if review["text"] is None:
        raise NoReview("text: expected the review's text, got nothing")
    review["review_id"] = _unicode(review_id, "review_id") or str(uuid.uuid4())
    review["source"] = review["source"] or SOURCE
    review["stars"] = _stars(content.get("stars"))
    review["created_at"] = _created_at(content.get("created_at"), now_ms)
    review["attributes"] = _attributes(content.get("attributes"))
    return review, review_id is None


def _json_of(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except NoReview:
        raise
    except RecursionError:
        raise NoReview("expected a review as JSON, got one that is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NoReview(f"expected a review as JSON, got {_shown(line)} ({error})") from error
    # Python rejects very long numbers, which JSON allows.
    except ValueError:
        raise NoReview("expected a review as JSON, got a number of thousands of digits") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _value in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NoReview(f"{twice!r:.60}: expected once in an object, got it twice")
    return content


def _no_number(word: str) -> Any:
    raise NoReview(f"expected JSON, which does not allow {word}")


def _shown(value: Any) -> str:
    """The beginning of a value, for messages; Python refuses to print very long numbers."""
    try:
        text = repr(value[:100] if isinstance(value, str) else value)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _text(content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise NoReview(f"{name}: expected text, got {_shown(value)}")
    return _unicode(value, name)


def _unicode(value: str | None, name: str) -> str | None:
    """Reject lone surrogates, which JSON can escape but UTF-8 cannot encode."""
    try:
        if value is not None:
            value.encode()
    except UnicodeEncodeError as error:
        raise NoReview(
            f"{name}: expected Unicode text, got half of a surrogate pair at character "
            f"{error.start + 1}"
        ) from error
    return value


def _stars(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoReview(f"stars: expected a number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NoReview(f"stars: expected a number of 1 to 5, got {_shown(value)}")
    return number


def _created_at(value: Any, now_ms: int) -> int:
    if value is None:
        return now_ms
    if isinstance(value, int) and not isinstance(value, bool):
        return _milliseconds(value)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        # A date at the end of the calendar may overflow in UTC.
        return (moment.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
    except (TypeError, ValueError, OverflowError) as error:
        raise NoReview(
            "created_at: expected ISO 8601 or milliseconds since 1970 as a whole number, got "
            f"{_shown(value)}"
        ) from error


def _milliseconds(value: int) -> int:
    """Raises NoReview on a number that is probably in another unit."""
    if LEAST_MS <= value < LEAST_US:
        return value
    looks = "" if value < 0 else ", which looks like "
    if 0 <= value < LEAST_MS:
        looks += "seconds"
    elif value >= LEAST_US:
        looks += "microseconds" if value < LEAST_NS else "nanoseconds"
    raise NoReview(
        f"created_at: expected milliseconds since 1970, got {_shown(value)}{looks}; write dates "
        "before 1973 and after 5138 in ISO 8601"
    )


def _attributes(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise NoReview(f"attributes: expected names with text values, got {_shown(value)}")
    for name, item in value.items():
        _unicode(name, "attributes")
        _unicode(item, f"attributes, {name!r:.60}")
    return dict(value)


def _paced(lines: Iterable[tuple[int, bytes]], rate: float | None) -> Iterator[tuple[int, bytes]]:
    due = time.monotonic()
    for item in lines:
        if rate is not None:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 1 / rate) + 1 / rate
        yield item


@contextmanager
def _lines(file: str) -> Iterator[Iterable[bytes]]:
    """The lines of the file, with a progress bar on a terminal."""
    if file == STDIN:
        yield bounded_lines(sys.stdin.buffer)
        return
    columns = (TextColumn("publishing"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        try:
            opened = progress.open(file, "rb")
        except OSError as error:
            raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from error
        with opened:
            yield bounded_lines(opened)


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, each cut at MAX_LINE_BYTES + 1; the rest of a longer one is skipped."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield line
