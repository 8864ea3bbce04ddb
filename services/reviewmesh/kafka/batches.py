"""Finds record batches that the client cannot read, and the offsets after them.

For some the client returns the same error at every fetch and never advances. Others decompress to
so much memory that the process dies before any of its code sees a record. Both are examined in a
process that may die (`reviewmesh.kafka.probe`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple, Protocol

from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.settings import Settings

# A client may have fetched so much ahead of the records that it returns.
AHEAD_BYTES = 8 * 1024 * 1024
# Sizes of one fetch: as the services fetch, then smaller, down to one batch at a time.
FETCH_BYTES = (1024 * 1024, 32 * 1024, 1)
ONE_BATCH = FETCH_BYTES[-1]
# A partition's opening may take 90 s.
DEADLINE_S = 75.0
# After this time no further batch is searched for.
ENOUGH_S = 25.0
ANSWER_S = 15.0
PROBES_AT_ONCE = 3
# Most such batches hold one record, and a producer that sends it again appends it close by.
ONE_BY_ONE = 4

RefusalCause = Literal["OVERSIZE", "UNREADABLE"]


class Impassable(NamedTuple):
    """Offsets from `offset` up to `next` whose records the client cannot return."""

    offset: int
    next: int
    cause: RefusalCause
    reason: str

    @property
    def extent(self) -> str:
        return f"offsets {self.offset} to {self.next - 1}, which cannot be read: {self.reason}"

    @property
    def message(self) -> str:
        return (
            f"{self.extent}. "
            "Send these records again, in smaller batches: all records of one together at most "
            f"{kafka.LARGEST_BATCH // 1024 // 1024} MiB before compression"
        )


@dataclass(slots=True)
class ReadResult:
    """The result of reading from an offset."""

    records: list[Record] = field(default_factory=list)
    # The next offset to read; after a death, the first at which the fatal batch may begin.
    next: int = 0
    died: bool = False
    # The first offset of a batch that the client rejects, and its error.
    refused: int | None = None
    error: str = ""


class Probes(Protocol):
    def read(self, at: int, fetch_bytes: int, at_most: int) -> ReadResult:
        """Records from `at` on, up to `at_most` bytes; with 0, only the outcome of the first fetch.

        Raises Unavailable when there is no answer now.
        """
        ...


def find_end(is_within: Callable[[int], bool], first: int) -> int:
    """The first offset that is not within: single steps, then doubled steps, then bisection."""
    inside, step = first, 1
    while is_within(inside + step):
        inside += step
        if inside - first >= ONE_BY_ONE:
            step *= 2
    outside = inside + step
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if is_within(middle):
            inside = middle
        else:
            outside = middle
    return outside


def find_impassable(probes: Probes, at: int) -> Impassable | None:
    """The batch at `at` that the client cannot read; None where it can.

    The end of a rejected batch is found exactly, since its error names the batch. A batch that ends
    the process gives no such information: where several of them lie close together, with more than
    ONE_BY_ONE records, the records between them may be skipped too.
    """
    found = probes.read(at, ONE_BATCH, 0)
    if found.died:
        # Something else may have ended the process, but hardly twice in a row.
        found = probes.read(at, ONE_BATCH, 0)
    if found.refused is not None:
        batch = found.refused
        # Offsets before it may be transaction markers, without a record.
        first = max(at, batch)

        def is_refused(offset: int) -> bool:
            return probes.read(offset, ONE_BATCH, 0).refused == batch

        cause: RefusalCause = (
            "OVERSIZE" if found.error.startswith("Decompression") else "UNREADABLE"
        )
        return Impassable(first, find_end(is_refused, first), cause, found.error)
    if not found.died:
        return None
    end = find_end(lambda offset: probes.read(offset, ONE_BATCH, 0).died, at)
    return Impassable(at, end, "OVERSIZE", "decompressed, they take more memory than there is")


def find_passage(
    probes: Probes, start: int, clock: Callable[[], float] = time.monotonic
) -> list[Record | Impassable]:
    """Records and unreadable batches from `start` up to the end of the last unreadable batch.

    Looks as far ahead as the client fetches; empty where it can read everything.
    """
    began = clock()
    passage: list[Record | Impassable] = []
    read: list[Record] = []
    at, room = start, AHEAD_BYTES
    while room > 0 and clock() - began < ENOUGH_S:
        batch = find_impassable(probes, at)
        if batch is not None:
            passage += [*read, batch]
            read, at = [], batch.next
            continue
        reading = _read_up_to_what_is_impassable(probes, at, room)
        read += reading.records
        room -= sum(len(record.value or b"") for record in reading.records)
        at = reading.next
        if not reading.died and reading.refused is None:
            break
    return passage


def _read_up_to_what_is_impassable(probes: Probes, at: int, room: int) -> ReadResult:
    whole = ReadResult(next=at)
    for fetch_bytes in FETCH_BYTES:
        reading = probes.read(whole.next, fetch_bytes, room)
        whole.records += reading.records
        reading.records = whole.records
        whole = reading
        if not reading.died:
            break
    return whole


class Prober:
    """Sends questions about one partition to a probe process, and starts another when one dies."""

    _at_once = threading.BoundedSemaphore(PROBES_AT_ONCE)

    def __init__(self, settings: Settings, topic: str, partition: int) -> None:
        self._topic, self._partition = topic, partition
        self._asked = json.dumps(
            {
                "options": kafka.reader_options(settings),
                "refusals": kafka.REFUSED_BATCH,
                "topic": settings.prefix + topic,
                "partition": partition,
            }
        )
        self._process: subprocess.Popen[str] | None = None
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._deadline = 0.0

    def __enter__(self) -> Prober:
        if not self._at_once.acquire(timeout=DEADLINE_S):
            raise Unavailable("other partitions are being probed; retrying")
        self._deadline = time.monotonic() + DEADLINE_S
        return self

    def __exit__(self, *raised: object) -> None:
        self._end()
        self._at_once.release()

    def read(self, at: int, fetch_bytes: int, at_most: int) -> ReadResult:
        if time.monotonic() > self._deadline:
            raise Unavailable(f"{self._place(at)}: probing took over {DEADLINE_S:g} s")
        reading = ReadResult(next=at)
        try:
            self._ask(json.dumps([at, fetch_bytes, at_most]))
        except BrokenPipeError:
            self._end()
            raise Unavailable(f"{self._place(at)}: the probing process ended") from None
        began = False
        while (line := self._line(at)).endswith("\n"):
            answer = json.loads(line)
            if "asking" in answer:
                began = True
            elif "record" in answer:
                reading.records.append(self._record(answer["record"]))
                reading.next = reading.records[-1].offset + 1
            else:
                return self._ended(reading, answer)
        # The output ended inside of an answer.
        self._end()
        if not began:
            raise Unavailable(f"{self._place(at)}: the probing process ended")
        reading.died = True
        return reading

    def _ended(self, reading: ReadResult, answer: dict[str, Any]) -> ReadResult:
        if "failed" in answer:
            raise Unavailable(f"{self._place(reading.next)}: {answer['failed']}")
        if "refused" in answer:
            reading.refused, reading.error = answer["refused"], answer["error"]
        return reading

    def _place(self, at: int) -> str:
        return f"{self._topic}/{self._partition} from offset {at}"

    def _record(self, parts: list[Any]) -> Record:
        offset, key, value, headers, timestamp_ms = parts
        listed = tuple((name, _bytes(content)) for name, content in headers)
        return Record(
            topic=self._topic,
            partition=self._partition,
            offset=offset,
            key=_bytes(key),
            value=_bytes(value),
            headers=listed,
            timestamp_ms=timestamp_ms,
        )

    def _ask(self, question: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reviewmesh.kafka.probe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._lines = SimpleQueue()
            threading.Thread(
                target=_pass_on, args=(self._process, self._lines), name="probe", daemon=True
            ).start()
            # Options may hold secrets, and any user can read a command line.
            self._write(self._asked)
        self._write(question)

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _line(self, at: int) -> str:
        """Empty when the process has ended. Raises Unavailable when nothing comes."""
        try:
            return self._lines.get(timeout=ANSWER_S)
        except Empty:
            self._end()
            raise Unavailable(f"{self._place(at)}: no answer within {ANSWER_S:g} s") from None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdin is not None
            try:
                process.stdin.close()
            except BrokenPipeError:
                return


def _pass_on(process: subprocess.Popen[str], lines: SimpleQueue[str]) -> None:
    """Forward the output; an empty line marks its end."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
