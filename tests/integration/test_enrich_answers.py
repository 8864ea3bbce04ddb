"""The enricher against workers and records that none of ours sent: each costs one review."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from reviewmesh.avro import topics
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.stage import EnrichContract, EnrichStage
from reviewmesh.kafka.record import Output, Record, Unit
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER
from tests.broker import TestStack, wait_until

TASK = "ner"
ROOM = 900_000
SERVICE = "inference.v1.InferenceService"
LINEAGE = inference_pb2.Lineage(task=TASK, engine="e", model="m", model_version="1")
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Answer = Callable[[inference_pb2.InferRequest], bytes]


class Stranger:
    """A worker that answers with whatever bytes a test gives."""

    def __init__(self) -> None:
        self.answer: Answer = good
        handler: Any = grpc.unary_unary_rpc_method_handler(
            lambda request, context: self.answer(request),
            request_deserializer=inference_pb2.InferRequest.FromString,
        )
        self.server = grpc.server(ThreadPoolExecutor(max_workers=8))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Infer": handler}),)
        )
        checks = health.HealthServicer()
        checks.set(TASK, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()


class Enricher:
    """The real stage, by hand."""

    def __init__(self, stack: TestStack, prefix: str, address: str) -> None:
        registry = SchemaRegistry(stack.registry_url)
        self.accepted = Codec(registry, f"{prefix}{ACCEPTED}-value", "accepted_review")
        self.results = Codec(registry, f"{prefix}reviews.ner-value", "ner_result")
        self.dead = Codec(registry, f"{prefix}{DEAD_LETTER}-value", "dead_letter")
        self.client = InferenceClient(TASK, [address], max_attempts=2)
        self.client.start()
        letters = DeadLetters(self.dead, time.time)
        self.stage = EnrichStage(
            TASK,
            EnrichContract(self.accepted, self.results, ROOM),
            letters,
            self.client,
            time.time,
        )
        self.stage.load(0, {})
        self.stage.open(0, NoLedgers(), None)
        self.offset = 0

    def record(self, review: dict[str, Any], **fields: Any) -> Record:
        self.offset += 1
        value = self.accepted.encode(review)
        key = review["review_id"].encode()
        return Record(ACCEPTED, 0, self.offset, key, value)._replace(**fields)

    def take(self, record: Record) -> Unit:
        self.stage.receive(record)
        units: list[Unit] = []

        def done() -> bool:
            units.extend(self.stage.poll())
            return bool(units)

        wait_until(done, 20, "the review is finished")
        assert [unit.finished for unit in units] == [((ACCEPTED, record.offset),)]
        return units[0]

    def result(self, unit: Unit) -> dict[str, Any]:
        [output] = [output for output in unit.outputs if output.topic == "reviews.ner"]
        assert size(output) <= ROOM
        return self.results.decode(output.value or b"")

    def dead_letter(self, unit: Unit) -> dict[str, Any]:
        [output] = [output for output in unit.outputs if output.topic == DEAD_LETTER]
        return self.dead.decode(output.value or b"")


class NoLedgers:
    """The enricher asks nothing of them."""

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        raise AssertionError

    def head(self, topic: str, partition: int) -> int:
        raise AssertionError

    position = topic_id = head


def size(output: Output) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers


@pytest.fixture(scope="module")
def worker() -> Iterator[Stranger]:
    worker = Stranger()
    yield worker
    worker.server.stop(0).wait(5)


@pytest.fixture(scope="module")
def enricher(stack: TestStack, worker: Stranger) -> Iterator[Enricher]:
    prefix = "tanswers."
    registry = SchemaRegistry(stack.registry_url)
    topics.apply({"bootstrap.servers": stack.bootstrap_servers}, registry, prefix, 3600)
    enricher = Enricher(stack, prefix, worker.address)
    yield enricher
    enricher.client.close()


def review(review_id: str = "r-1", **fields: Any) -> dict[str, Any]:
    return {"review_id": review_id, "content_hash": "c", "text": "Anna came", **fields}


def results(*results: inference_pb2.Result, lineage: bool = True) -> bytes:
    given = LINEAGE if lineage else None
    return inference_pb2.InferResponse(results=results, lineage=given).SerializeToString()


def entity(**fields: Any) -> inference_pb2.Result:
    whole: dict[str, Any] = {
        "start": 0,
        "end": 4,
        "text": "Anna",
        "label": "person",
        "score": 0.5,
    } | fields
    entities = [inference_pb2.Entity(**whole)]
    return inference_pb2.Result(id="0", ner=inference_pb2.NerOutput(entities=entities))


def good(request: inference_pb2.InferRequest) -> bytes:
    return results(entity())


def another_task(request: inference_pb2.InferRequest) -> bytes:
    return results(inference_pb2.Result(id="0", sentiment=inference_pb2.SentimentOutput()))


def error(request: inference_pb2.InferRequest) -> bytes:
    failure = inference_pb2.ItemError(code="x" * 1_000_000, message="y" * 1_000_000)
    return results(inference_pb2.Result(id="0", error=failure))


def large_lineage(request: inference_pb2.InferRequest) -> bytes:
    lineage = inference_pb2.Lineage(model="m" * 1_000_000)
    return inference_pb2.InferResponse(results=[entity()], lineage=lineage).SerializeToString()


def no_utf_8(request: inference_pb2.InferRequest) -> bytes:
    return results(entity(label="person")).replace(b"person", b"\xed\xa0\xbd\xff\xfe\xfd")


FAILING: dict[str, tuple[Answer, str]] = {
    "another task": (another_task, "expected the worker to answer with NerOutput, got Sentiment"),
    "no number": (lambda _: results(entity(score=math.nan)), "finite scores, got nan"),
    "infinite": (lambda _: results(entity(score=-math.inf)), "finite scores, got -inf"),
    "no lineage": (lambda _: results(entity(), lineage=False), "got no lineage"),
    "large label": (lambda _: results(entity(label="x" * 1_000_000)), "at most 900,000 bytes, got"),
    "large lineage": (large_lineage, "at most 900,000 bytes, got"),
    "large error": (error, "xxxx"),
    "lone surrogate": (no_utf_8, ""),
    "no protobuf": (lambda _: b"\xff" * 100, ""),
    "nothing": (lambda _: b"", "without a result"),
    "other ids": (lambda _: results(inference_pb2.Result(id="7")), "without a result"),
    "no outcome": (lambda _: results(inference_pb2.Result(id="0")), "without a result"),
}


@pytest.mark.parametrize("case", FAILING)
def test_an_answer_that_is_none_costs_its_review_and_says_why(
    enricher: Enricher, worker: Stranger, case: str
) -> None:
    answer, message = FAILING[case]
    with answering(worker, answer):
        unit = enricher.take(enricher.record(review()))
    result, letter = enricher.result(unit), enricher.dead_letter(unit)
    assert (result["status"], result["review_id"], result["content_hash"]) == ("FAILED", "r-1", "c")
    assert result["accepted_offset"] == enricher.offset
    assert message in letter["message"] and result["error"] == letter["message"]
    assert letter["cause"] == "FAILED" and letter["review_id"] == "r-1"
    assert enricher.result(enricher.take(enricher.record(review())))["status"] == "OK"


@pytest.mark.parametrize(
    "span", [{"start": -5}, {"end": 2**62}, {"start": -(2**63), "end": 2**63 - 1}, {"start": 3}]
)
def test_spans_that_do_not_hold_are_left_out(
    enricher: Enricher, worker: Stranger, span: dict[str, int]
) -> None:
    with answering(worker, lambda _: results(entity(**span))):
        result = enricher.result(enricher.take(enricher.record(review())))
    assert (result["status"], result["entities"]) == ("OK", [])


def test_doubled_and_foreign_ids_give_one_result(enricher: Enricher, worker: Stranger) -> None:
    with answering(worker, lambda _: results(entity(), entity(label="x"), another("1"))):
        result = enricher.result(enricher.take(enricher.record(review())))
    assert [found["label"] for found in result["entities"]] == ["person"]


def another(name: str) -> inference_pb2.Result:
    return inference_pb2.Result(id=name, ner=inference_pb2.NerOutput())


def test_what_a_partition_waits_for_is_what_its_oldest_record_waits_for(
    enricher: Enricher, worker: Stranger
) -> None:
    go_on = threading.Event()

    def held(request: inference_pb2.InferRequest) -> bytes:
        go_on.wait(20)
        return good(request)

    assert enricher.stage.waits_for(0) == ""
    with answering(worker, held):
        first, second = enricher.record(review()), enricher.record(review())
        enricher.stage.receive(first)
        enricher.stage.receive(second)
        enricher.stage.poll()
        told = f"the worker at {worker.address} has had it for 0 s"
        wait_until(lambda: enricher.stage.waits_for(0) == told, 10, "it says where the first is")
        assert enricher.stage.waits_for(1) == ""
        go_on.set()
        units: list[Unit] = []

        def both() -> bool:
            units.extend(enricher.stage.poll())
            return len(units) == 2

        wait_until(both, 20, "both are finished")
    assert [unit.finished[0][1] for unit in units] == [first.offset, second.offset]
    assert enricher.stage.waits_for(0) == ""


def test_retries_are_counted_once_their_result_is_committed(
    enricher: Enricher, worker: Stranger
) -> None:
    calls: list[inference_pb2.InferRequest] = []

    def busy_at_first(request: inference_pb2.InferRequest) -> bytes:
        calls.append(request)
        failure = inference_pb2.ItemError(code="BUSY", message="come again", retryable=True)
        busy = results(inference_pb2.Result(id="0", error=failure))
        return busy if len(calls) == 1 else good(request)

    def counted() -> float:
        sample = REGISTRY.get_sample_value("reviewmesh_inference_retries_total", {"task": TASK})
        return sample or 0.0

    before = counted()
    with answering(worker, busy_at_first):
        unit = enricher.take(enricher.record(review()))
    assert enricher.result(unit)["status"] == "OK" and counted() == before
    assert unit.committed is not None
    unit.committed()
    assert counted() == before + 1


@contextmanager
def answering(worker: Stranger, answer: Answer) -> Iterator[None]:
    worker.answer = answer
    try:
        yield
    finally:
        worker.answer = good


# -- records that intake did not write --------------------------------------------------------


def test_a_tombstone_becomes_a_dead_letter(enricher: Enricher) -> None:
    unit = enricher.take(enricher.record(review(), value=None))
    assert [output.topic for output in unit.outputs] == [DEAD_LETTER]


def test_a_record_that_cannot_be_read_has_a_failed_result_under_its_key(enricher: Enricher) -> None:
    unit = enricher.take(enricher.record(review(), value=b"\0\0\0"))
    assert enricher.dead_letter(unit)["cause"] == "MALFORMED"
    result = enricher.result(unit)
    assert (result["status"], result["review_id"], result["content_hash"]) == ("FAILED", "r-1", "")


def test_without_a_key_that_names_a_review_there_is_only_the_dead_letter(
    enricher: Enricher,
) -> None:
    for key in (None, b"", b"\xff\xfe"):
        unit = enricher.take(enricher.record(review(), value=b"\0", key=key))
        assert [output.topic for output in unit.outputs] == [DEAD_LETTER]


def test_a_review_without_a_text_is_answered(enricher: Enricher, worker: Stranger) -> None:
    with answering(worker, lambda _: results(another("0"))):
        result = enricher.result(enricher.take(enricher.record(review(text=None))))
    assert result["status"] == "OK"


def test_headers_that_the_mesh_did_not_write_go_no_further(enricher: Enricher) -> None:
    headers = (("traceparent", TRACE), ("traceparent", b"x" * 2_000_000), ("other", b"y"))
    unit = enricher.take(enricher.record(review(), headers=headers))
    assert enricher.result(unit)["status"] == "OK"
    assert unit.outputs[0].headers == (("traceparent", TRACE),)


def test_a_review_id_that_fits_no_result_leaves_the_dead_letter(enricher: Enricher) -> None:
    unit = enricher.take(enricher.record(review("x" * 1_000_000)))
    assert [output.topic for output in unit.outputs] == [DEAD_LETTER]
