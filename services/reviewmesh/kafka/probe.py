"""`python -m reviewmesh.kafka.probe`: reads one partition in a process that may die of it.

The client unpacks what a producer compressed before anybody can look at it: a batch of a few
hundred kilobytes may become a gigabyte. This process has little memory and time for each fetch, so
that such a batch ends it and nothing else. It is started often, and imports little.

Lines of JSON: first what to read and how comes in; then a question at a time, each answered by a
line that says that it begins, any number of records and one line that ends it. An answer that began
and does not end was the process's end.
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

# What a batch may take beside what the client itself does: unpacked, and its records once more.
ROOM_BYTES = 96 * 1024 * 1024
CPU_S = 0.7
CONNECT_S = 5.0
ANSWER_S = 12.0
DRAIN = 100_000
# How long the client waits with the next fetch once it has something that was not taken.
READ_BACKOFF_MS = 10
ASK_BACKOFF_MS = 100
LOOK_EVERY_S = 0.02


class Probe:
    def __init__(
        self, options: dict[str, str], refusals: list[int], topic: str, partition: int
    ) -> None:
        self._options = options
        # The codes of errors that are of a batch.
        self._refusals = refusals
        self._topic, self._partition = topic, partition
        self._opened: tuple[int, int] = (0, 0)
        self._consumer: Any = None

    def answer(self, at: int, fetch_bytes: int, at_most: int) -> None:
        """Give the records from `at` on, until they have so many bytes; none where that is 0: then
        it is only told what comes first.

        How it ended: `given` (the next offset), `ended` (nothing is there yet), `refused` (the
        batch with this first offset, and its error).
        """
        self._open(fetch_bytes, ASK_BACKOFF_MS if at_most == 0 else READ_BACKOFF_MS)
        # Its threads are there now, and each has a stack.
        _limit_data(_data_bytes() + ROOM_BYTES)
        _say({"asking": at})
        self._consumer.assign([TopicPartition(self._topic, self._partition, at)])
        _limit_cpu()
        # The answer is out before anything else is done, which the process may not live to see.
        _say(self._first() if at_most == 0 else self._read(at, at_most))
        self._consumer.unassign()

    def _first(self) -> dict[str, Any]:
        """The client must not fetch what is behind before the answer is out: it is left to see that
        it has something, for which it then waits, before that is taken from it."""
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
            # Behind the end there is nothing; the beginning is not what was asked for.
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
    """What counts against RLIMIT_DATA now."""
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if "VmData" in line)


def _limit_data(wanted: int | None) -> None:
    """None: no limit but what the process was started with."""
    at_most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if wanted is None or (at_most != resource.RLIM_INFINITY and wanted > at_most):
        wanted = at_most
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, at_most))


def _limit_cpu() -> None:
    """From now on, in all threads; the signal ends the process."""
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
            # Where its room happens to end makes no difference.
            return
        except Exception as error:  # noqa: BLE001 - that is no fault of a batch
            _say({"failed": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
