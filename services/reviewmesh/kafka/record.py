"""What a service reads and writes: Kafka records as plain values.

Named tuples: thousands are made each second, and a frozen dataclass takes three times as long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from operator import methodcaller
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

Headers = tuple[tuple[str, bytes | None], ...]

TRACEPARENT = "traceparent"
ORIGIN_TIMESTAMP = "reviewmesh-origin-timestamp"
REPLAY = "reviewmesh-replay"
REPLAY_OF = "reviewmesh-replay-of"
FORWARDED_FROM = "reviewmesh-forwarded-from"
FORWARDED_MAC = "reviewmesh-forwarded-mac"
# A header's lengths and a record's own: at most that much each beside names and values.
OVERHEAD = 16
MAX_HEADERS = 1_000
# What the mesh writes into a header that goes on is shorter; a longer value is not the mesh's.
LONGEST_KEPT_HEADER = 256
TELL_AGAIN_AFTER_S = 60.0


class Record(NamedTuple):
    """A consumed record; `topic` is without the prefix, `timestamp_ms` is Kafka's."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0

    def header(self, name: str) -> bytes | None:
        """The last header of that name, as Kafka's own clients read it."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None


class Output(NamedTuple):
    """A record to produce; `topic` is without the prefix."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    # Called once it is committed, as `Unit.committed` is.
    committed: Callable[[], None] | None = None

    def size(self) -> int:
        """What it measures on its topic, less the batch around it."""
        own = len(self.key or b"") + len(self.value or b"")
        return own + headers_size(self.headers) + 4 * OVERHEAD


class Unit(NamedTuple):
    """Input offsets that are finished once `outputs` are committed, all in one transaction."""

    partition: int
    finished: tuple[tuple[str, int], ...]
    outputs: tuple[Output, ...] = ()
    # Called once the transaction is committed: what is counted there is not counted again when the
    # same records are read again.
    committed: Callable[[], None] | None = None


class Unavailable(RuntimeError):
    """Something outside is not there now: the record is held and tried again, nothing is lost."""


def headers_size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value or b"") + OVERHEAD for name, value in headers)


# Called in C, which looks whether an error was left behind. Python's own call of a method that it
# has specialised does not, and the error then comes up somewhere else.
_headers = methodcaller("headers")
_last_told_of_headers = -TELL_AGAIN_AFTER_S


def headers_of(message: Any) -> Headers:
    """A consumed message's headers, the last where there are very many; none where the client
    cannot give them: when the name of one is not UTF-8, it gives all and leaves an error behind.
    """
    try:
        found = _headers(message) or ()
    except (UnicodeDecodeError, SystemError):
        _tell_of_headers(message, "all headers: the name of one is not UTF-8")
        return ()
    if len(found) > MAX_HEADERS:
        # Compressed, a million of them is a small record; the mesh's own come last.
        _tell_of_headers(message, f"headers: expected at most {MAX_HEADERS}, got {len(found):,}")
    return tuple(found[-MAX_HEADERS:])


def _tell_of_headers(message: Any, what: str) -> None:
    global _last_told_of_headers
    now = time.monotonic()
    if now - _last_told_of_headers >= TELL_AGAIN_AFTER_S:
        _last_told_of_headers = now
        log.warning(
            "left out of %s/%s at offset %s, others like it within a minute are not told of: %s",
            message.topic(),
            message.partition(),
            message.offset(),
            what,
        )
