"""W3C trace context: the mesh carries it through, and begins one where a producer gave none."""

from __future__ import annotations

import os


def new_traceparent() -> bytes:
    """A sampled-out traceparent with random ids, as in W3C Trace Context level 1."""
    return b"00-%s-%s-00" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode())
