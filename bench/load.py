"""The load generator, a process of its own: open loop, by a schedule that waits for nobody.

Record i of a run is due at start + i / rate, and its latency counts from there, however late it
gets out: a system that holds its producer up cannot hide it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from confluent_kafka import KafkaError, Producer

from bench import reviews
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry

TICK_S = 0.005
FLUSH_S = 60.0
MOST_A_TICK = 2_000


@dataclass(frozen=True)
class Schedule:
    """Records of one run; `tag` begins their ids. `rate` is a second, `start` is a wall clock's."""

    tag: str
    start: float
    rate: float
    count: int


def generate(connection: Connection, bootstrap_servers: str, registry_url: str, topic: str) -> None:
    """The process: runs the Schedules that come; "stop" ends one early, "finish" lets it go on.

    Either is answered, at the end, with how many were sent and with what went wrong.
    """
    codec = Codec(SchemaRegistry(registry_url), f"{topic}-value", "review")
    generator = Generator(bootstrap_servers, topic, reviews.Payloads(codec, reviews.load()))
    connection.send("ready")
    try:
        while True:
            generator.run(connection, connection.recv())
    except (EOFError, KeyboardInterrupt):
        return


class Generator:
    def __init__(self, bootstrap_servers: str, topic: str, payloads: reviews.Payloads) -> None:
        self._topic = topic
        self._payloads = payloads
        self._failed: list[str] = []
        # Runs go on where the last one ended: a worker that remembers texts must not know them.
        self._texts = 0
        self._producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": "true",
                # As Java's producer would: where a review belongs.
                "partitioner": "murmur2_random",
                "linger.ms": "5",
                "compression.type": "lz4",
                "queue.buffering.max.messages": "500000",
                "delivery.report.only.error": True,
                "on_delivery": self._on_failure,
            }
        )

    def _on_failure(self, error: KafkaError, message: object) -> None:
        self._failed.append(error.str())

    def run(self, connection: Connection, schedule: Schedule) -> None:
        """Send what is due until all is sent or the word is "stop"."""
        sent, word = 0, ""
        while sent < schedule.count and word != "stop":
            if connection.poll():
                word = connection.recv()
            due = int((time.time() - schedule.start) * schedule.rate) + 1
            for sequence in range(sent, min(max(due, 0), schedule.count, sent + MOST_A_TICK)):
                self._produce(schedule, sequence)
                sent += 1
            self._producer.poll(0)
            if sent >= due:
                time.sleep(TICK_S)
        if not word:
            connection.recv()
        unsent = self._producer.flush(FLUSH_S)
        failure = f"{unsent} unsent, {self._failed[:1]}" if unsent or self._failed else ""
        connection.send((sent, failure))

    def _produce(self, schedule: Schedule, sequence: int) -> None:
        key, value = self._payloads.record(schedule.tag, sequence, self._texts)
        self._texts += 1
        while True:
            try:
                self._producer.produce(self._topic, key=key, value=value)
                return
            except BufferError:
                self._producer.poll(0.01)
