"""`python -m bench.peers.plain STAGE BATCH CALLS`: a loop of confluent-kafka with transactions.

Reads a batch, works all of it off with so many calls at once, writes the outcomes and the offsets
in one transaction, reads the next: librdkafka's own example of exactly-once, in batches. The
joiner keeps what it waits for in memory and commits all the same, so a crash would lose reviews:
a join that does not would be slower.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.peers import work
from reviewmesh.avro.contracts import Contracts
from reviewmesh.settings import Settings
from reviewmesh_protos.inference.v1 import inference_pb2_grpc
from reviewmesh_schemas import names

GATHER_S = 0.05
CALL_TIMEOUT_S = 10.0
Outputs = list[tuple[str, int, bytes, bytes]]
"""Topic, partition, key and value of what a batch leads to."""

Stage = Callable[[list[Any]], Outputs]


def intake(contracts: Contracts) -> Stage:
    raw, accepted = contracts.codec(names.RAW), contracts.codec(names.ACCEPTED)

    def run(messages: list[Any]) -> Outputs:
        outputs = []
        for message in messages:
            review = work.accept(
                raw.decode(message.value()),
                message.partition(),
                message.offset(),
                message.timestamp()[1],
            )
            value = accepted.encode(review)
            outputs.append((names.ACCEPTED, message.partition(), message.key(), value))
        return outputs

    return run


def enricher(contracts: Contracts, task: str, calls: int) -> Stage:
    accepted, results = contracts.codec(names.ACCEPTED), contracts.codec(names.RESULT_OF[task])
    loop = asyncio.new_event_loop()

    async def connect() -> Any:
        return inference_pb2_grpc.InferenceServiceStub(
            grpc.aio.insecure_channel(work.worker_of(task))
        )

    stub = loop.run_until_complete(connect())
    room = asyncio.Semaphore(calls)

    async def one(message: Any) -> tuple[str, int, bytes, bytes]:
        review = accepted.decode(message.value())
        async with room:
            answer = await stub.Infer(work.request(task, review), timeout=work.CALL_TIMEOUT_S)
        record = work.result(task, review, message.partition(), message.offset(), answer)
        value = results.encode(record)
        return names.RESULT_OF[task], message.partition(), message.key(), value

    async def together(messages: list[Any]) -> Outputs:
        return list(await asyncio.gather(*map(one, messages)))

    return lambda messages: loop.run_until_complete(together(messages))


def joiner(contracts: Contracts) -> Stage:
    codecs = {
        topic: contracts.codec(topic) for topic in (names.ACCEPTED, *names.RESULT_OF.values())
    }
    enriched = contracts.codec(names.ENRICHED)
    waiting: dict[bytes, dict[str, Any]] = defaultdict(dict)

    def run(messages: list[Any]) -> Outputs:
        outputs = []
        for message in messages:
            topic = message.topic()[message.topic().index("reviews.") :]
            parts = waiting[message.key()]
            parts[topic] = codecs[topic].decode(message.value())
            if len(parts) == len(codecs):
                results = {task: parts[name] for task, name in names.RESULT_OF.items()}
                value = enriched.encode(work.enriched(parts[names.ACCEPTED], results))
                outputs.append((names.ENRICHED, message.partition(), message.key(), value))
                del waiting[message.key()]
        return outputs

    return run


def run(settings: Settings, stage_name: str, batch: int, calls: int) -> None:
    """Until the process is ended."""
    contracts = Contracts(settings)
    if stage_name == "intake":
        stage, topics = intake(contracts), [names.RAW]
    elif stage_name == "joiner":
        stage, topics = joiner(contracts), [names.ACCEPTED, *names.RESULT_OF.values()]
    else:
        task = stage_name.removeprefix("enricher-")
        stage, topics = enricher(contracts, task, calls), [names.ACCEPTED]
    group, bootstrap = settings.prefix + stage_name, settings.kafka.bootstrap_servers
    producer: Any = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": f"{group}-{settings.slot}",
            "linger.ms": "5",
            "compression.type": "lz4",
        }
    )
    producer.init_transactions(CALL_TIMEOUT_S)
    consumer: Any = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": "50",
            "fetch.queue.backoff.ms": "10",
        }
    )
    consumer.subscribe([settings.prefix + topic for topic in topics])
    while True:
        messages = [m for m in consumer.consume(batch, GATHER_S) if m.error() is None]
        if not messages:
            continue
        outputs = stage(messages)
        producer.begin_transaction()
        for topic, partition, key, value in outputs:
            producer.produce(settings.prefix + topic, value, key, partition)
        producer.send_offsets_to_transaction(
            _next_offsets(messages), consumer.consumer_group_metadata(), CALL_TIMEOUT_S
        )
        producer.commit_transaction(CALL_TIMEOUT_S)


def _next_offsets(messages: list[Any]) -> list[TopicPartition]:
    last = {(message.topic(), message.partition()): message.offset() for message in messages}
    return [TopicPartition(*place, offset + 1) for place, offset in last.items()]


if __name__ == "__main__":
    _, name, batch_size, calls_at_once = sys.argv
    run(Settings(), name, int(batch_size), int(calls_at_once))
