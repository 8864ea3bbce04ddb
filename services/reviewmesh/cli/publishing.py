"""Publishes the rows of a file, and keeps account of each: published, refused or neither yet."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any, Protocol, TextIO

import fastavro
from confluent_kafka import KafkaError, KafkaException

from reviewmesh.avro.codec import load_schema
from reviewmesh.avro.contracts import Contracts
from reviewmesh.cli.sources.columns import REFUSED_BY
from reviewmesh.cli.sources.errors import FileBroken, NoReview
from reviewmesh.cli.sources.reading import Source, original_of
from reviewmesh.cli.sources.review import review_of
from reviewmesh.cli.sources.rows import Row
from reviewmesh.cli.terminal import err
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import TRACEPARENT
from reviewmesh.kafka.tracing import new_traceparent
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach
from reviewmesh.query.sending import Sender
from reviewmesh.settings import Settings
from reviewmesh_kit.printable import plain
from reviewmesh_schemas.names import RAW

SHOWN_OF_A_KIND = 3
# Kinds have few words of their own, but a file of junk may find many.
KINDS = 40
OTHER = "other reasons"
SCHEMA_ID_BYTES = 5
IDS = uuid.UUID("6f1d3a52-8f0e-5c3b-9d42-0c5a7f6f2b11")
# What the broker says about one record; anything else is said about all that follow.
OF_ONE_RECORD = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD)


class Encoder(Protocol):
    """Makes a record's bytes of a review."""

    def encode(self, record: dict[str, Any]) -> bytes: ...


class Settled:
    """Up to which row every one has its outcome; acknowledgements may come in any order."""

    def __init__(self, before: int = 0) -> None:
        self.up_to = before
        self._open: deque[int] = deque()
        self._done: set[int] = set()

    def opened(self, number: int) -> None:
        """Numbers rise."""
        self._open.append(number)

    def settled(self, number: int) -> None:
        self._done.add(number)
        while self._open and self._open[0] in self._done:
            self.up_to = self._open.popleft()
            self._done.remove(self.up_to)

    @property
    def pending(self) -> int:
        return len(self._open) - len(self._done)


class RefusedRows:
    """Rows that are no reviews: the first of each kind is shown, all are counted and kept."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.total = 0
        self.kinds: Counter[str] = Counter()
        self._file = file

    def add(self, row: Row, problem: NoReview) -> None:
        self.total += 1
        known = problem.kind in self.kinds or len(self.kinds) < KINDS
        kind = problem.kind if known else OTHER
        self.kinds[kind] += 1
        if self.kinds[kind] <= SHOWN_OF_A_KIND:
            err.print(f"{row.where}: {plain(str(problem))}", style="red")
        if self._file is not None:
            why = {"row": row.number, "where": row.where, "reason": str(problem)}
            # ASCII: what is refused may be no text.
            self._file.write(json.dumps(original_of(row) | {REFUSED_BY: why}) + "\n")


class Publishing:
    """One run over a file; what became of it stays here also if it ends early."""

    def __init__(
        self,
        settings: Settings | None = None,
        refusals: RefusedRows | None = None,
        path: str | None = None,
        before: int = 0,
        rate: float | None = None,
        checked: bool = True,
        on_generated: Callable[[str], None] = lambda _id: None,
        on_place: Callable[[tuple[int, int]], None] = lambda _place: None,
        on_row: Callable[[], None] = lambda: None,
    ) -> None:
        """`path`: names the file in ids that are generated, the same each time. Without it, as
        of input that has no name, they are drawn. Not `checked`: intake refuses what it refuses."""
        self.refusals = refusals or RefusedRows()
        self.settled = Settled(before)
        self.published = 0
        self.failed = 0
        self.failure: str | None = None
        self.broken: FileBroken | None = None
        self.interrupted = False
        self._settings = Settings() if settings is None else settings
        self._path = path
        self._rate = rate
        self._checked = checked
        self._on_generated = on_generated
        self._on_place = on_place
        self._on_row = on_row

    def try_out(self, source: Source, on_review: Callable[[dict[str, Any]], None]) -> None:
        """Everything but sending; what would be sent counts as published."""
        contracts = Contracts(self._settings)
        with _Ending(self):
            for row, review, _value in self._reviews(
                source, _SchemaOnly(), contracts.max_bytes(RAW)
            ):
                self.settled.opened(row.number)
                self.published += 1
                on_review(review)
                self.settled.settled(row.number)

    def publish(self, source: Source, connection: Connection) -> None:
        """Publish and wait for the acknowledgements."""
        sender = Sender(connection)
        partitions = connection.partitions(RAW)
        codec, most = connection.codec(RAW), connection.contracts.max_bytes(RAW)
        with _Ending(self):
            try:
                for row, review, value in self._paced(self._reviews(source, codec, most)):
                    key = review["review_id"].encode()
                    self.settled.opened(row.number)
                    try:
                        sender.send(
                            RAW,
                            partition=partition_of(key, partitions),
                            key=key,
                            value=value,
                            headers=[(TRACEPARENT, new_traceparent())],
                            on_delivery=partial(self._delivered, Row(row.number, row.where)),
                        )
                    except KafkaException as error:
                        self._refuse(row, NoReview(error.args[0].str()))
                    if (row.fields or {}).get("review_id") is None:
                        self._on_generated(review["review_id"])
                    if self.failure is not None:
                        break
            finally:
                sender.close()

    def _reviews(
        self, source: Source, encoder: Encoder, most_bytes: int
    ) -> Iterator[tuple[Row, dict[str, Any], bytes]]:
        """The rows that are reviews; others are refused."""
        drop = self._settings.intake.drop_attributes if self._checked else None
        for row in source.rows():
            self._on_row()
            try:
                if row.problem is not None:
                    raise row.problem
                review = review_of(row.fields or {}, int(time.time() * 1000), drop, source.notes)
                if review["review_id"] is None:
                    review["review_id"] = self._new_id(row)
                value = encoder.encode(review)
                # The broker would reject the whole batch.
                size = len(review["review_id"].encode()) + len(value)
                if size > most_bytes:
                    raise NoReview(
                        f"expected a review of at most {most_bytes:,} bytes, got {size:,}"
                    )
            except NoReview as problem:
                self.settled.opened(row.number)
                self._refuse(row, problem)
                continue
            yield row, review, value

    def _new_id(self, row: Row) -> str:
        if self._path is None:
            return str(uuid.uuid4())
        content = json.dumps(row.content, sort_keys=True)
        return str(uuid.uuid5(IDS, f"{self._path}\n{row.number}\n{content}"))

    def _refuse(self, row: Row, problem: NoReview) -> None:
        self.refusals.add(row, problem)
        self.settled.settled(row.number)

    def _delivered(self, row: Row, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.published += 1
            self._on_place((message.partition(), message.offset()))
            self.settled.settled(row.number)
        elif error.code() in OF_ONE_RECORD:
            self._refuse(row, NoReview(error.str()))
        else:
            self.failed += 1
            self.failure = self.failure or f"{row.where}: {error.str()}"

    def _paced(
        self, reviews: Iterator[tuple[Row, dict[str, Any], bytes]]
    ) -> Iterator[tuple[Row, dict[str, Any], bytes]]:
        due = time.monotonic()
        for item in reviews:
            if self._rate is not None:
                time.sleep(max(0.0, due - time.monotonic()))
                due = max(due, time.monotonic() - 1 / self._rate) + 1 / self._rate
            yield item


class _Ending:
    """Keeps why a run ended early."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, KeyboardInterrupt):
            self._publishing.interrupted = True
        elif isinstance(error, FileBroken):
            self._publishing.broken = error
        elif isinstance(error, CannotReach):
            self._publishing.failure = self._publishing.failure or str(error)
        else:
            return error is None
        return True


class _SchemaOnly:
    """Encodes as the codec of a mesh does, without a registry."""

    def __init__(self) -> None:
        self._parsed: Any = fastavro.parse_schema(load_schema("review"))

    def encode(self, record: dict[str, Any]) -> bytes:
        buffer = BytesIO(bytes(SCHEMA_ID_BYTES))
        buffer.seek(0, 2)
        fastavro.schemaless_writer(buffer, self._parsed, record)
        return buffer.getvalue()
