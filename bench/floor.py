"""The floor: CPU of codec and client calls alone, for the messages that the mesh itself exchanged.

`python -m bench.floor PREFIX WORKER_ADDRESS BROKER_PID WORKER_PID` reads the topics of a mesh that
has run, and does with their records what no mesh of this shape can go without, and nothing else:
each is read, decoded, encoded and written as often as the mesh must, in large transactions, and
each text is sent to the worker once for each task. Prints CPU seconds per 1,000 reviews as JSON.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import psutil
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh.avro import topics
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.contracts import Contracts
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.kafka import clients as kafka
from reviewmesh.settings import Settings
from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_schemas.names import ACCEPTED, ENRICHED, RAW, RESULT_OF, TASKS

RESULTS = tuple(RESULT_OF.values())
# How often each record is read: intake; three enrichers and the joiner; the joiner.
READS = {RAW: 1, ACCEPTED: 4, **dict.fromkeys(RESULTS, 1)}
WRITTEN = (ACCEPTED, *RESULTS, ENRICHED)
KEPT = 5_000
CONSUMED_AT_ONCE = 500
A_TRANSACTION = 500
ITEMS_A_CALL = 32
DEADLINE_S = 60.0
CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Message:
    partition: int
    key: bytes
    value: bytes
    headers: Any


class Costs:
    """CPU seconds per 1,000 reviews by part, and what the broker and the worker spent meanwhile."""

    def __init__(self, broker_pid: int, worker_pid: int) -> None:
        self._watched = {"broker": psutil.Process(broker_pid), "worker": psutil.Process(worker_pid)}
        self.parts: dict[str, float] = {}

    def add(self, part: str, times: int, work: Callable[[], int]) -> None:
        """`work` says how many records it handled; the mesh does that `times` for each review."""
        before, others = time.process_time(), self._others()
        records = work()
        per_1000 = 1000 * times / records
        self._count(part, (time.process_time() - before) * per_1000)
        for name, seconds in self._others().items():
            self._count(name, (seconds - others[name]) * per_1000)

    def _count(self, part: str, seconds: float) -> None:
        self.parts[part] = self.parts.get(part, 0.0) + seconds

    def _others(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self._watched.items()}


def measure(settings: Settings, worker: str, broker_pid: int, worker_pid: int) -> dict[str, float]:
    """CPU seconds per 1,000 reviews of each part."""
    costs = Costs(broker_pid, worker_pid)
    contracts = Contracts(settings)
    kept: dict[str, list[Message]] = {topic: [] for topic in (*READS, ENRICHED)}
    read(settings, ENRICHED, kept[ENRICHED])
    for topic, times in READS.items():
        costs.add("kafka reads", times, partial(read, settings, topic, kept[topic]))
        costs.add("decoding", times, partial(decode, contracts.codec(topic), kept[topic]))
    for topic in WRITTEN:
        codec = contracts.codec(topic)
        records = [codec.decode(message.value) for message in kept[topic]]
        costs.add("encoding", 1, partial(encode, codec, records))
    producer, prefix = scratch(settings)
    for topic in WRITTEN:
        costs.add("kafka writes", 1, partial(write, producer, prefix + topic, kept[topic]))
    accepted = contracts.codec(ACCEPTED)
    texts = [accepted.decode(message.value)["text"] for message in kept[ACCEPTED]]
    with grpc.insecure_channel(worker) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for task in TASKS:
            costs.add("grpc calls", 1, partial(call, stub, task, texts))
    return costs.parts


def read(settings: Settings, topic: str, kept: list[Message]) -> int:
    """Read the whole topic as the mesh's consumers do; keeps the first records of it."""
    name = settings.prefix + topic
    consumer: Any = kafka.make_consumer(kafka.reader_options(settings), raise_)
    partitions = consumer.list_topics(name, timeout=CALL_TIMEOUT_S).topics[name].partitions
    consumer.assign([TopicPartition(name, number, 0) for number in partitions])
    unread = set(partitions)
    count, deadline = 0, time.monotonic() + DEADLINE_S
    while unread:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} not read to its end within {DEADLINE_S:g} s")
        for message in consumer.consume(CONSUMED_AT_ONCE, 0.05):
            if message.error() is not None:
                unread.discard(message.partition())
                continue
            count += 1
            record = Message(message.partition(), message.key(), message.value(), message.headers())
            if len(kept) < KEPT:
                kept.append(record)
    consumer.close()
    if not count:
        raise ValueError(f"expected records in {name}, found none; let the mesh run first")
    return count


def decode(codec: Codec, messages: list[Message]) -> int:
    for message in messages:
        codec.decode(message.value)
    return len(messages)


def encode(codec: Codec, records: list[dict[str, Any]]) -> int:
    for record in records:
        codec.encode(record)
    return len(records)


def scratch(settings: Settings) -> tuple[Any, str]:
    """A transactional producer as the mesh's, and the prefix of topics of its own."""
    prefix = f"f{uuid.uuid4().hex[:6]}."
    bootstrap = {"bootstrap.servers": settings.kafka.bootstrap_servers}
    topics.apply(bootstrap, SchemaRegistry(settings.registry.url), prefix, 24 * 3600)
    producer = kafka.make_producer(kafka.producer_options(settings, f"{prefix}floor"), raise_)
    producer.init_transactions(CALL_TIMEOUT_S)
    return producer, prefix


def write(producer: Any, topic: str, messages: list[Message]) -> int:
    for start in range(0, len(messages), A_TRANSACTION):
        producer.begin_transaction()
        for message in messages[start : start + A_TRANSACTION]:
            producer.produce(
                topic,
                value=message.value,
                key=message.key,
                partition=message.partition,
                headers=message.headers,
            )
        producer.commit_transaction(CALL_TIMEOUT_S)
    return len(messages)


def call(stub: Any, task: str, texts: list[str]) -> int:
    for start in range(0, len(texts), ITEMS_A_CALL):
        items = [
            inference_pb2.Item(id=str(number), text=text, language="")
            for number, text in enumerate(texts[start : start + ITEMS_A_CALL])
        ]
        stub.Infer(inference_pb2.InferRequest(task=task, items=items), timeout=CALL_TIMEOUT_S)
    return len(texts)


def raise_(error: KafkaError) -> None:
    raise KafkaException(error)


if __name__ == "__main__":
    _, own_prefix, worker_address, broker, worker_process = sys.argv
    found = measure(Settings(prefix=own_prefix), worker_address, int(broker), int(worker_process))
    print(json.dumps(found))
