"""W3C trace context: the mesh propagates it, and starts a trace where a producer gave none."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import NamedTuple

RATIO_BITS = 64
RATIO_MASK = (1 << RATIO_BITS) - 1
VALID = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class TraceContext(NamedTuple):
    trace_id: int
    parent_id: int
    """The span of whoever published the review."""
    is_ours: bool
    """Whether the mesh made it: then nobody has a span of that id."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which reviews are traced although nothing is the matter with their answers."""

    slow_s: float
    """A review that took longer from the producer's timestamp on is traced."""
    share: float
    """Of the others, 0 to 1."""

    def is_slow(self, took_ms: float) -> bool:
        return took_ms > self.slow_s * 1000

    def takes(self, trace_id: int) -> bool:
        """As OpenTelemetry's TraceIdRatioBased: whoever samples the same share has the same
        traces."""
        return trace_id & RATIO_MASK < round(self.share * (RATIO_MASK + 1))


def new_traceparent() -> bytes:
    """A traceparent with a random trace id, not sampled, as in W3C Trace Context level 1.

    Its span id follows from the trace id, so that `context_of` knows that the mesh made it.
    """
    trace_id = os.urandom(16)
    return b"00-%s-%s-00" % (trace_id.hex().encode(), _own_parent(trace_id).hex().encode())


def valid_traceparent(header: bytes | None) -> bytes | None:
    """A producer's traceparent if it is valid; anything else is dropped."""
    return header if header is not None and VALID.fullmatch(header) else None


def context_of(header: bytes | None) -> TraceContext | None:
    """None without a valid traceparent; ids of zeros are invalid."""
    if (valid := valid_traceparent(header)) is None:
        return None
    _, trace_id, parent_id, _ = valid.split(b"-")
    if not int(trace_id, 16) or not int(parent_id, 16):
        return None
    own = _own_parent(bytes.fromhex(trace_id.decode()))
    return TraceContext(int(trace_id, 16), int(parent_id, 16), own.hex().encode() == parent_id)


def context_at(place: str) -> TraceContext:
    """For a record that came without a valid traceparent: ids made from where it is."""
    trace_id = hashlib.sha256(place.encode()).digest()[:16]
    parent = int.from_bytes(_own_parent(trace_id), "big")
    return TraceContext(int.from_bytes(trace_id, "big"), parent, is_ours=True)


def _own_parent(trace_id: bytes) -> bytes:
    return hashlib.sha256(b"reviewmesh" + trace_id).digest()[:8]
