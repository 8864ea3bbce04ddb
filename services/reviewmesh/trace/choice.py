"""Which reviews are traced: told from the headers of a record alone, so that no other is decoded.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from reviewmesh.kafka.record import CAMPAIGN, ORIGIN_TIMESTAMP, TRACE_REASON, TRACEPARENT, Record
from reviewmesh.kafka.tracing import Sampling, context_of

SLOW = "slow"
SAMPLED = "sampled"


@dataclass(frozen=True, slots=True)
class TraceChoice(Sampling):
    """Of the tracer."""

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
        if record.header(CAMPAIGN) is None and self._took_long(record):
            return SLOW
        return SAMPLED if self.takes(context.trace_id) else ""

    def _took_long(self, record: Record) -> bool:
        try:
            began_ms = int(record.header(ORIGIN_TIMESTAMP) or b"")
        except ValueError:
            return False
        return self.is_slow(record.timestamp_ms - began_ms)
