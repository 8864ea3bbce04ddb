"""Spans of reviews through a whole mesh, as an OTLP endpoint receives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh_schemas.names import TASKS, TRACER_GROUP
from tests.broker import TestStack
from tests.mesh import PARTITIONS, Mesh, Process, review
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan

SOON_S = 60
PRODUCER = "1122334455667788"
WHOLE = {"reviewmesh-intake", "reviewmesh-joiner", *(f"reviewmesh-enricher-{t}" for t in TASKS)}


@pytest.fixture
def endpoint() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path, endpoint: OtlpReceiver) -> Iterator[Mesh]:
    settings = {
        "REVIEWMESH_TRACES__ENDPOINT": endpoint.url,
        "REVIEWMESH_TRACES__SHARE": "0",
        "REVIEWMESH_TRACES__SLOW_S": "3600",
    }
    with Mesh(stack, prefix, tmp_path, settings) as mesh:
        mesh.start()
        mesh.add("trace").start()
        mesh.wait_ready()
        mesh.wait_for(lambda: follows(mesh), SOON_S, "the tracer has its partitions")
        yield mesh


def follows(mesh: Mesh) -> bool:
    """It reads from its first assignment on."""
    mesh.publish_raw(b"nothing that decodes", key=b"probe", partition=0)
    return mesh.processes["trace"].metric("reviewmesh_spans_total") > 0


def publish(mesh: Mesh, item: dict[str, Any], value: bytes | None = None) -> str:
    """Publish as a producer that traces does; gives the trace id."""
    trace_id = os.urandom(16).hex()
    key = item["review_id"].encode()
    producer = mesh.producer()
    producer.produce(
        mesh.prefix + "reviews.raw",
        key=key,
        value=mesh.codec("reviews.raw").encode(item) if value is None else value,
        partition=partition_of(key, PARTITIONS),
        headers=[("traceparent", f"00-{trace_id}-{PRODUCER}-01".encode())],
    )
    assert producer.flush(30) == 0
    return trace_id


def unfinished_of_tracer(mesh: Mesh) -> int:
    """As `reviewmesh lag` shows it."""
    environment = os.environ | mesh.stack.environment("operator")
    environment |= {"REVIEWMESH_PREFIX": mesh.prefix}
    command = [sys.executable, "-m", "reviewmesh.cli", "lag", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    rows = json.loads(done.stdout)
    return sum(row["unfinished"] for row in rows if row["group"] == mesh.prefix + TRACER_GROUP)


def is_whole(spans: list[ReceivedSpan]) -> bool:
    return {span.service for span in spans} >= WHOLE


def assert_one_tree(spans: list[ReceivedSpan]) -> None:
    """Every parent is there, but for the producer's span; no span ends before it begins."""
    ids = {span.span_id for span in spans}
    for span in spans:
        parent = span.span.parent_span_id.hex()
        assert parent in ids | {PRODUCER}, f"{span.service} {span.span.name}: parent {parent}"
        assert span.span.start_time_unix_nano <= span.span.end_time_unix_nano, span


def test_what_failed_is_traced_whole_and_the_rest_is_not(
    mesh: Mesh, endpoint: OtlpReceiver
) -> None:
    mesh.script(poison=["poisonous"])
    plain = [publish(mesh, review(f"plain-{n}", f"A good stay, number {n}.")) for n in range(40)]
    failed = publish(mesh, review("failed", "A poisonous stay."))
    broken = publish(mesh, review("broken", ""), value=b"\x00\x00")
    mesh.wait_for(lambda: is_whole(endpoint.spans(failed)), SOON_S, "the failed review's trace")
    mesh.wait_for(lambda: bool(endpoint.spans(broken)), SOON_S, "the dead letter's span")
    spans = endpoint.spans(failed)
    assert_one_tree(spans)
    of_tasks = [s for s in spans if s.service.startswith("reviewmesh-enricher-")]
    assert all(span.failed for span in of_tasks)
    assert sum(s.failed for s in spans if s.service == "reviewmesh-joiner") == 1
    [letter] = endpoint.spans(broken)
    assert letter.service == "reviewmesh-intake" and letter.failed
    assert letter.span.parent_span_id.hex() == PRODUCER
    mesh.wait_enriched(41)
    assert not [span for trace in plain for span in endpoint.spans(trace)]
    assert exemplars(mesh.processes["joiner"], "reviewmesh_end_to_end_seconds") == {failed}


def exemplars(process: Process, histogram: str) -> set[str]:
    """The trace ids beside its buckets, as Prometheus is told them."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{process.http_port}/metrics",
        headers={"Accept": "application/openmetrics-text;version=1.0.0"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        text = response.read().decode()
        return {
            sample.exemplar.labels["trace_id"]
            for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
            for sample in family.samples
            if family.name == histogram and sample.exemplar is not None
        }


def test_the_trace_of_a_late_review_tells_of_queue_call_and_model(
    mesh: Mesh, endpoint: OtlpReceiver
) -> None:
    tracer = mesh.processes["trace"]
    tracer.terminate()
    tracer.environment["REVIEWMESH_TRACES__SLOW_S"] = "0.001"
    tracer.start()
    mesh.wait_ready()
    mesh.script(delay_ms=50)
    traces = [publish(mesh, review(f"late-{n}", f"A good stay, number {n}.")) for n in range(20)]
    mesh.wait_for(lambda: all(is_whole(endpoint.spans(t)) for t in traces), SOON_S, "all traces")
    calls = [span for span in endpoint.spans() if not span.span.parent_span_id]
    ids = {(span.trace_id, span.span_id) for span in calls}
    for trace in traces:
        spans = endpoint.spans(trace)
        assert_one_tree(spans)
        names = {span.span.name for span in spans}
        assert {"queue", "inference scripted", "inference.v1.InferenceService/Infer"} <= names
        linked = {
            (link.trace_id.hex(), link.span_id.hex()) for span in spans for link in span.span.links
        }
        assert len(linked) == len(TASKS) and linked <= ids


def test_a_killed_tracer_loses_no_trace(mesh: Mesh, endpoint: OtlpReceiver) -> None:
    mesh.script(poison=["poisonous"])
    tracer = mesh.processes["trace"]
    endpoint.refuses = True
    traces = [publish(mesh, review(f"f-{n}", f"A poisonous stay, {n}.")) for n in range(10)]
    mesh.wait_for(lambda: endpoint.refused > 0, SOON_S, "spans are refused")
    mesh.wait_for(lambda: "OTLP endpoint" in tracer.get("/readyz")[1], SOON_S, "it says so")
    assert unfinished_of_tracer(mesh) > 0
    tracer.kill()
    endpoint.refuses = False
    tracer.start()
    mesh.wait_for(lambda: all(is_whole(endpoint.spans(t)) for t in traces), SOON_S, "all traces")
    for trace in traces:
        assert_one_tree(endpoint.spans(trace))
    mesh.wait_for(lambda: unfinished_of_tracer(mesh) == 0, SOON_S, "the tracer has caught up")
