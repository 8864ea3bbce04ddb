"""What a service reads and writes: Kafka records as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

Headers = tuple[tuple[str, bytes | None], ...]

TRACEPARENT = "traceparent"
ORIGIN_TIMESTAMP = "reviewmesh-origin-timestamp"
REPLAY = "reviewmesh-replay"
FORWARDED_FROM = "reviewmesh-forwarded-from"


@dataclass(frozen=True, slots=True)
class Record:
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


@dataclass(frozen=True, slots=True)
class Output:
    """A record to produce; `topic` is without the prefix."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Unit:
    """Input offsets that are finished once `outputs` are committed, all in one transaction."""

    partition: int
    finished: tuple[tuple[str, int], ...]
    outputs: tuple[Output, ...] = field(default=())


class Unavailable(RuntimeError):
    """Something outside is not there now: the record is held and tried again, nothing is lost."""
