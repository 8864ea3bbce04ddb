"""W3C trace context: the mesh propagates it, and starts a trace where a producer gave none."""

from __future__ import annotations

import os
import re

VALID = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def new_traceparent() -> bytes:
    """A sampled-out traceparent with random ids, as in W3C Trace Context level 1."""
    return b"00-%s-%s-00" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode())


def valid_traceparent(header: bytes | None) -> bytes | None:
    """A producer's traceparent if it is valid; anything else is dropped."""
    return header if header is not None and VALID.fullmatch(header) else None
