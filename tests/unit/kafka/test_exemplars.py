"""Which latencies carry a trace id, and how it is exposed."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from reviewmesh.kafka.exemplars import NO_EXEMPLARS, Exemplars
from reviewmesh.kafka.record import ORIGIN_TIMESTAMP, TRACEPARENT, Headers, Record
from reviewmesh.settings import TracesSettings
from reviewmesh.trace.choice import TraceChoice
from reviewmesh_kit import http_server
from reviewmesh_kit.settings import HttpSettings

ENDPOINT = "http://127.0.0.1:4318"
# The lower half of the id decides: nothing of it is below any share, all of it above.
LOW, HIGH = "1" * 16 + "0" * 16, "1" * 16 + "f" * 16
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def headers(trace_id: str) -> Headers:
    return ((TRACEPARENT, f"00-{trace_id}-1122334455667788-01".encode()),)


def traced(share: float = 0.5) -> Exemplars:
    return Exemplars(TracesSettings(endpoint=ENDPOINT, slow_s=10, share=share))


@pytest.mark.parametrize(
    ("trace_id", "took_ms", "is_marked"),
    [(LOW, 5, False), (HIGH, 10_001, False), (HIGH, 5, True), (HIGH, 9_999, False)],
    ids=["sampled", "slow", "marked", "like most"],
)
def test_a_review_has_an_exemplar_if_and_only_if_the_tracer_takes_it(
    trace_id: str, took_ms: int, is_marked: bool
) -> None:
    mark = (("reviewmesh-trace", b"failed"),) if is_marked else ()
    all_headers = (*headers(trace_id), (ORIGIN_TIMESTAMP, b"1000"), *mark)
    record = Record("reviews.enriched", 0, 0, None, b"", all_headers, 1000 + took_ms)
    takes = bool(TraceChoice(slow_s=10, share=0.5).reason(record))

    found = traced().of(headers(trace_id), took_ms, is_marked)

    assert found == ({"trace_id": trace_id} if takes else None)


def test_without_an_endpoint_or_a_trace_there_is_none() -> None:
    assert NO_EXEMPLARS.of(headers(LOW), 60_000, True) is None
    for header in (None, b"", b"00-zz", f"00-{'0' * 32}-1122334455667788-01".encode()):
        assert traced(share=1).of(((TRACEPARENT, header),), 60_000, True) is None
    assert traced(share=1).of((), 60_000, True) is None


def test_who_asks_for_openmetrics_gets_them_and_others_the_text_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = CollectorRegistry()
    seconds = Histogram("probe_seconds", "Of a probe.", buckets=(1, 10), registry=registry)
    seconds.observe(5, traced().of(headers(LOW), 5_000))
    seconds.observe(0.5, traced().of(headers(HIGH), 500))
    monkeypatch.setattr(http_server, "REGISTRY", registry)
    server = http_server.serve(HttpSettings(), {})
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        request = urllib.request.Request(url, headers={"Accept": OPENMETRICS})
        with urllib.request.urlopen(request, timeout=5) as response:
            kind, text = response.headers["Content-Type"], response.read().decode()
        with urllib.request.urlopen(url, timeout=5) as response:
            plain_kind, plain_text = response.headers["Content-Type"], response.read().decode()
    finally:
        server.shutdown()
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    [family] = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    exemplars = {s.labels["le"]: s.exemplar for s in family.samples if s.name.endswith("_bucket")}
    assert exemplars["1.0"] is None and exemplars["+Inf"] is None
    assert exemplars["10.0"].labels == {"trace_id": LOW} and exemplars["10.0"].value == 5
    assert plain_kind.startswith("text/plain") and LOW not in plain_text
    assert 'probe_seconds_bucket{le="10.0"} 2.0' in plain_text
