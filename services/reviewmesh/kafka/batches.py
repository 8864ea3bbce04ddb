"""Finds the batches that the client cannot take, and where their partitions go on behind them.

Some it refuses with an error, again and again, and never goes past. Of others, which become far
larger than they look, the process dies before any of its code sees a record. Both are read in a
process that may die of them (`reviewmesh.kafka.probe`).
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

# What a client may have fetched ahead of what it gives.
AHEAD_BYTES = 8 * 1024 * 1024
# Of one fetch: as the services fetch, and then smaller, until it is one batch at a time.
FETCH_BYTES = (1024 * 1024, 32 * 1024, 1)
ONE_BATCH = FETCH_BYTES[-1]
# A partition's opening may take 90 s.
DEADLINE_S = 75.0
# So much later no further batch is looked for.
ENOUGH_S = 25.0
ANSWER_S = 15.0
PROBES_AT_ONCE = 3
# A batch that nobody can take is mostly one record, and when sent again it lies close to the first.
ONE_BY_ONE = 4

Cause = Literal["OVERSIZE", "UNREADABLE"]


class Impassable(NamedTuple):
    """Offsets, from `offset` up to `next`, of which the client gives no record."""

    offset: int
    next: int
    cause: Cause
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
class Reading:
    """What was read from an offset on."""

    records: list[Record] = field(default_factory=list)
    # Where to go on; of what the process died of, where it may begin at the earliest.
    next: int = 0
    died: bool = False
    # The first offset of a batch that the client refuses, and its error.
    refused: int | None = None
    error: str = ""


class Probes(Protocol):
    def read(self, at: int, fetch_bytes: int, at_most: int) -> Reading:
        """Records from `at` on until they have `at_most` bytes; with 0, only what happens first.

        Raises Unavailable when that cannot be told now.
        """
        ...


def find_end(is_within: Callable[[int], bool], first: int) -> int:
    """The first offset that is not within: going up, one by one at first and then in doubled steps,
    and then halving."""
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
    """The batch that the client cannot take at `at`; None where it can.

    Where the end of a batch that is refused lies is found exactly, since its error names it. Of one
    that ends the process nothing is known but that: when several of them lie close together, and
    there are more than ONE_BY_ONE records, what lies between may be passed over with them.
    """
    found = probes.read(at, ONE_BATCH, 0)
    if found.died:
        # A process may be ended by something else, hardly twice in a row.
        found = probes.read(at, ONE_BATCH, 0)
    if found.refused is not None:
        batch = found.refused
        # Before it there may be offsets without a record, of the markers of transactions.
        first = max(at, batch)

        def is_refused(offset: int) -> bool:
            return probes.read(offset, ONE_BATCH, 0).refused == batch

        return Impassable(first, find_end(is_refused, first), _cause(found.error), found.error)
    if not found.died:
        return None
    end = find_end(lambda offset: probes.read(offset, ONE_BATCH, 0).died, at)
    return Impassable(at, end, "OVERSIZE", "decompressed, they take more memory than there is")


def _cause(error: str) -> Cause:
    return "OVERSIZE" if error.startswith("Decompression") else "UNREADABLE"


def find_passage(
    probes: Probes, start: int, clock: Callable[[], float] = time.monotonic
) -> list[Record | Impassable]:
    """What to take in place of what the client would give from `start` on, which ends behind the
    last batch that it cannot take, as far ahead as it fetches; empty where it can take all."""
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


def _read_up_to_what_is_impassable(probes: Probes, at: int, room: int) -> Reading:
    whole = Reading(next=at)
    for fetch_bytes in FETCH_BYTES:
        reading = probes.read(whole.next, fetch_bytes, room)
        whole.records += reading.records
        reading.records = whole.records
        whole = reading
        if not reading.died:
            break
    return whole


class Prober:
    """Asks a process, and starts another one when it died of a question. Of one partition."""

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
            raise Unavailable("other partitions are looked through")
        self._deadline = time.monotonic() + DEADLINE_S
        return self

    def __exit__(self, *raised: object) -> None:
        self._end()
        self._at_once.release()

    def read(self, at: int, fetch_bytes: int, at_most: int) -> Reading:
        if time.monotonic() > self._deadline:
            raise Unavailable(f"{self._place(at)}: not known within {DEADLINE_S:g} s what is there")
        reading = Reading(next=at)
        try:
            self._ask(json.dumps([at, fetch_bytes, at_most]))
        except BrokenPipeError:
            self._end()
            raise Unavailable(f"{self._place(at)}: the process that looks ended") from None
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
        # Its output ended in the midst of an answer.
        self._end()
        if not began:
            raise Unavailable(f"{self._place(at)}: the process that looks ended")
        reading.died = True
        return reading

    def _ended(self, reading: Reading, answer: dict[str, Any]) -> Reading:
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
            # Options may be secrets: not on a command line, which anybody can see.
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
    """Until its output ends, which an empty line tells."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
