"""`python -m reviewmesh.kafka.probe`: reads one partition in a process that may die.

The client decompresses a batch before any code can check it: a few hundred kilobytes may become a
gigabyte. This process has limits of memory and CPU time for each fetch, so that such a batch ends
only this process. It is started often, and imports little.

The protocol is JSON lines. The first line of the input says what to read. Each further one is a
question, answered by a line `asking`, any number of records, and one last line. When the last line
is missing, the process died of the question.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from reviewmesh.kafka.record import headers_of

# Memory for a batch on top of the client itself: decompressed, and its records once more.
ROOM_BYTES = 96 * 1024 * 1024
CPU_S = 0.7
CONNECT_S = 5.0
ANSWER_S = 12.0
DRAIN = 100_000
# How long the client delays the next fetch while its queue is not empty.
READ_BACKOFF_MS = 10
ASK_BACKOFF_MS = 100
LOOK_EVERY_S = 0.02


class Probe:
    def __init__(
        self, options: dict[str, str], refusals: list[int], topic: str, partition: int
    ) -> None:
        self._options = options
        # The codes of errors that concern a batch.
        self._refusals = refusals
        self._topic, self._partition = topic, partition
        self._opened: tuple[int, int] = (0, 0)
        self._consumer: Any = None

    def answer(self, at: int, fetch_bytes: int, at_most: int) -> None:
        """Print the records from `at` on, up to so many bytes; with 0, only the outcome of the
        first
        fetch.

        The last line: `given` (the next offset), `ended` (nothing there yet), `refused` (the first
        offset of a batch, and its error), or `failed`.
        """
        self._open(fetch_bytes, ASK_BACKOFF_MS if at_most == 0 else READ_BACKOFF_MS)
        # After the client has started its threads, since each has a stack.
        _limit_data(_data_bytes() + ROOM_BYTES)
        _say({"asking": at})
        self._consumer.assign([TopicPartition(self._topic, self._partition, at)])
        _limit_cpu()
        # Print the answer before anything else: the process may die of the next fetch.
        _say(self._first() if at_most == 0 else self._read(at, at_most))
        self._consumer.unassign()

    def _first(self) -> dict[str, Any]:
        """The client must not fetch the next batch before the answer is printed. While its queue is
        not empty it delays the next fetch, so the message is left in the queue for a while."""
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
            message = self._consumer.poll(0)
            if message is None:
                continue
            if message.error() is None:
                return {"given": message.offset()}
            if (ended := self._ended(message, message.offset())) is not None:
                return ended
        return {"failed": f"no answer within {ANSWER_S:g} s"}

    def _read(self, at: int, at_most: int) -> dict[str, Any]:
        given, following = 0, at
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            first = self._consumer.poll(0.2)
            if first is None:
                continue
            # The rest of the same fetch.
            for message in (first, *self._consumer.consume(DRAIN, 0)):
                if message.error() is not None:
                    if (ended := self._ended(message, following)) is not None:
                        return ended
                    continue
                given += _write(message)
                following = message.offset() + 1
                deadline = time.monotonic() + ANSWER_S
                if given >= at_most:
                    return {"given": following}
            sys.stdout.flush()
            _limit_cpu()
        return {"failed": f"no answer within {ANSWER_S:g} s"}

    def _ended(self, message: Any, following: int) -> dict[str, Any] | None:
        error = message.error()
        if error.code() in self._refusals and message.offset() >= 0:
            return {"refused": message.offset(), "error": error.str()}
        if error.code() in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
            return {"ended": following}
        return None

    def _open(self, fetch_bytes: int, backoff_ms: int) -> None:
        if (fetch_bytes, backoff_ms) == self._opened:
            return
        _limit_data(None)
        if self._consumer is not None:
            self._consumer.close()
        options = {
            **self._options,
            "fetch.message.max.bytes": str(fetch_bytes),
            "queued.min.messages": "1",
            "fetch.queue.backoff.ms": str(backoff_ms),
            # By default a fetch after the end would restart at the beginning.
            "auto.offset.reset": "error",
        }
        self._consumer = Consumer({**options, "error_cb": lambda error: None})
        target = TopicPartition(self._topic, self._partition)
        self._consumer.get_watermark_offsets(target, timeout=CONNECT_S)
        self._opened = (fetch_bytes, backoff_ms)


def _write(message: Any) -> int:
    key, value, headers = message.key(), message.value(), headers_of(message)
    record = [
        message.offset(),
        _text(key),
        _text(value),
        [[name, _text(content)] for name, content in headers],
        message.timestamp()[1],
    ]
    print(json.dumps({"record": record}))
    return len(key or b"") + len(value or b"") + sum(len(content or b"") for _, content in headers)


def _text(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode("ascii")


def _data_bytes() -> int:
    """The memory that counts against RLIMIT_DATA now."""
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if "VmData" in line)


def _limit_data(wanted: int | None) -> None:
    """None: the limit that the process was started with."""
    at_most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if wanted is None or (at_most != resource.RLIM_INFINITY and wanted > at_most):
        wanted = at_most
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, at_most))


def _limit_cpu() -> None:
    """Of all threads, from now on; the signal ends the process."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S)


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    probe = Probe(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        try:
            probe.answer(*json.loads(line))
        except MemoryError:
            # Running out of memory in Python counts as dying.
            return
        except Exception as error:  # noqa: BLE001 - the batch is not the cause
            _say({"failed": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
