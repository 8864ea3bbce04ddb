"""Exemplars of latencies: the trace id of a review that is traced, beside its bucket.

Only of a review whose trace is sure to be there, as the tracer will choose it, and only in a
process that knows that traces are taken.
"""

from __future__ import annotations

from reviewmesh.kafka.record import TRACEPARENT, Headers
from reviewmesh.kafka.tracing import Sampling, context_of
from reviewmesh.settings import TracesSettings

Exemplar = dict[str, str]
"""Labels, as Prometheus and Grafana look for them."""


class Exemplars:
    """Of one process."""

    def __init__(self, settings: TracesSettings) -> None:
        taken = Sampling(settings.slow_s, settings.share) if settings.endpoint else None
        self._sampling = taken

    def of(self, headers: Headers, took_ms: float, is_marked: bool = False) -> Exemplar | None:
        """None where there may be no trace.

        `took_ms`: from the producer's timestamp on. `is_marked`: whether it is traced however long
        it took.
        """
        if self._sampling is None:
            return None
        context = context_of(dict(headers).get(TRACEPARENT))
        if context is None:
            return None
        slow = self._sampling.is_slow(took_ms)
        if not (is_marked or slow or self._sampling.takes(context.trace_id)):
            return None
        return {"trace_id": f"{context.trace_id:032x}"}


NO_EXEMPLARS = Exemplars(TracesSettings())
"""Where nothing is traced."""
