"""Kafka records as plain values: what services read and write.

Named tuples, because a frozen dataclass takes three times as long to create.
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
TRACE_REASON = "reviewmesh-trace"
"""On an enriched review that is always traced: why."""
REPLAY = "reviewmesh-replay"
REPLAY_OF = "reviewmesh-replay-of"
# When the record first became a dead letter, in milliseconds: also of a replay that failed again.
REPLAY_SINCE = "reviewmesh-replay-since"
FORWARDED_FROM = "reviewmesh-forwarded-from"
CAMPAIGN = "reviewmesh-campaign"
FORWARDED_MAC = "reviewmesh-forwarded-mac"
# Upper bound of the length fields of a header, and of a record.
OVERHEAD = 16
MAX_HEADERS = 1_000
# What the mesh writes into a header that goes on is shorter; a longer value is not the mesh's.
LONGEST_KEPT_HEADER = 256
LOG_AGAIN_AFTER_S = 60.0


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
        """Its size on the topic in bytes, without the batch overhead."""
        own = len(self.key or b"") + len(self.value or b"")
        return own + headers_size(self.headers) + 4 * OVERHEAD


class Unit(NamedTuple):
    """Input offsets that are finished once `outputs` are committed, all in one transaction.

    It may finish none: its transaction then commits the partition's offset as it is, so that only
    the partition's owner can write it.
    """

    partition: int
    finished: tuple[tuple[str, int], ...]
    outputs: tuple[Output, ...] = ()
    # Called once the transaction is committed, so that records that are read again are not counted
    # twice.
    committed: Callable[[], None] | None = None
    # Called when its outputs are refused every time: it is given up, or its record set aside.
    refused: Callable[[str], None] | None = None
    # The stage's own, for `Stage.transaction_outputs`.
    carries: object = None
    # Its record was set aside: there is nothing else to write in place of its outputs.
    is_set_aside: bool = False


class Unavailable(RuntimeError):
    """A dependency is unavailable: the record is kept and retried."""


def kept_headers(headers: Headers, *others: str) -> Headers:
    """Those that travel on with a review, and `others`; what is too long the mesh did not write."""
    return tuple(
        (name, value)
        for name, value in headers
        if name in (TRACEPARENT, ORIGIN_TIMESTAMP, *others)
        and len(value or b"") <= LONGEST_KEPT_HEADER
    )


def headers_size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value or b"") + OVERHEAD for name, value in headers)


# A call from C checks whether an exception is set. Python's specialised method call does not, and
# the
# exception then surfaces somewhere else.
_headers = methodcaller("headers")
_headers_logged_at = -LOG_AGAIN_AFTER_S


def headers_of(message: Any) -> Headers:
    """A consumed message's headers, at most the last MAX_HEADERS.

    None where a name is not UTF-8: the client then returns them with an exception set.
    """
    try:
        found = _headers(message) or ()
    except (UnicodeDecodeError, SystemError):
        _log_left_out(message, "its headers, because the name of one is not UTF-8")
        return ()
    if len(found) > MAX_HEADERS:
        # A million headers compress to a small record; the mesh's own come last.
        _log_left_out(message, f"headers but the last {MAX_HEADERS:,} of {len(found):,}")
    return tuple(found[-MAX_HEADERS:])


def _log_left_out(message: Any, what: str) -> None:
    global _headers_logged_at
    now = time.monotonic()
    if now - _headers_logged_at >= LOG_AGAIN_AFTER_S:
        _headers_logged_at = now
        log.warning(
            "the record at %s/%s, offset %s, is read without %s",
            message.topic(),
            message.partition(),
            message.offset(),
            what,
        )
