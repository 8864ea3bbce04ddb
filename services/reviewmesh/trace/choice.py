"""Which reviews are traced: told from the headers of a record alone, so that no other is decoded.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from reviewmesh.kafka.record import CAMPAIGN, ORIGIN_TIMESTAMP, TRACE_REASON, TRACEPARENT, Record
from reviewmesh.kafka.tracing import context_of

SLOW = "slow"
SAMPLED = "sampled"
RATIO_BITS = 64
RATIO_MASK = (1 << RATIO_BITS) - 1


@dataclass(frozen=True, slots=True)
class TraceChoice:
    slow_s: float
    """A review that took longer from the producer's timestamp on is traced."""
    share: float
    """Of the others, 0 to 1."""

    def reason(self, record: Record) -> str:
        """Why an enriched review is traced; empty when it is not.

        The joiner marks what is partial, failed, or answered by a fallback or a candidate.
        """
        context = context_of(record.header(TRACEPARENT))
        if context is None:
            return ""
        if (marked := record.header(TRACE_REASON)) is not None:
            return marked.decode("ascii", "replace")
        # An answer done again is as late as its campaign.
        if record.header(CAMPAIGN) is None and self._is_slow(record):
            return SLOW
        # As OpenTelemetry's TraceIdRatioBased: whoever samples the same share has the same traces.
        if context.trace_id & RATIO_MASK < round(self.share * (RATIO_MASK + 1)):
            return SAMPLED
        return ""

    def _is_slow(self, record: Record) -> bool:
        try:
            began_ms = int(record.header(ORIGIN_TIMESTAMP) or b"")
        except ValueError:
            return False
        return record.timestamp_ms - began_ms > self.slow_s * 1000
