"""A whole mesh under test: every process its own, on the run's broker, under a prefix."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

import reviewmesh_schemas
from reviewmesh.avro import topics
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import RegistryUnavailable, registry_of
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import headers_of
from reviewmesh.local.ports import find_free
from reviewmesh.local.secure import ADMIN
from reviewmesh.query.connection import Connection, connection_of
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import TASKS
from tests.broker import TestStack, wait_until

ENRICHERS = tuple(f"enricher-{task}" for task in TASKS)
SERVICES = ("intake", *ENRICHERS, "joiner")
PARTITIONS = 6
APPLIED_WITHIN_S = 60
SCHEMAS = {topic.name: topic.schema for topic in topics.load_topics().topics}


_given: set[int] = set()


def free_port() -> int:
    """Not one that the kernel hands out, and none twice: what it is for may be long in starting."""
    port = find_free(_given)
    _given.add(port)
    return port


@dataclass
class Process:
    """One process of the mesh; it can be killed, stopped, woken and started again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    http_port: int
    popen: subprocess.Popen[bytes] | None = None
    folder: Path | None = None
    """Where it runs; None: here."""

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, cwd=self.folder
            )

    @property
    def pid(self) -> int:
        assert self.popen is not None, f"{self.name} was not started"
        return self.popen.pid

    def signal(self, number: int) -> None:
        assert self.popen is not None
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = 40) -> int:
        assert self.popen is not None
        return self.popen.wait(timeout_s)

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        # A port that another program has taken may answer with anything.
        except (OSError, HTTPException) as error:
            return 0, str(error)

    def metric(self, sample: str) -> float:
        """The sum of the samples of this name, or of this one sample; 0 while there is none."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith((f"{sample}{{", f"{sample} "))
        )

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200


@dataclass
class Mesh:
    """Started with `start`, ended when it is left; `worker` serves all tasks unless split."""

    stack: TestStack
    prefix: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    workers_per_task: bool = False
    workers_each: int = 1
    """Of each task, where they are per task."""
    worker_command: list[str] = field(default_factory=list)
    """Python module and arguments of the workers; the scripted worker where none is given."""
    processes: dict[str, Process] = field(default_factory=dict)
    partitions: int = PARTITIONS
    """Of each topic; with another number than that of the contracts every process gets a copy of
    them."""

    def __post_init__(self) -> None:
        self.control = self.folder / "control.json"
        self.registry = registry_of(self.stack.registry(), APPLIED_WITHIN_S)
        self.kafka = self.stack.kafka()
        self._positions: dict[str, dict[int, int]] = {}
        self._records: dict[str, list[Any]] = defaultdict(list)
        names = [f"worker-{task}" for task in TASKS] if self.workers_per_task else ["worker"]
        names += [f"{name}-{number}" for name in names for number in range(1, self.workers_each)]
        self.worker_ports = {name: free_port() for name in names}

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    # -- processes ---------------------------------------------------------------------------

    def apply_topics(self) -> None:
        """As an operator does: run again where the registry was too slow to answer."""
        self.stack.grant(self.prefix)
        if self.partitions != PARTITIONS:
            self._apply_own_contracts()
            return
        deadline = time.monotonic() + APPLIED_WITHIN_S
        while True:
            try:
                topics.apply(self.kafka, self.registry, self.prefix, 24 * 3600)
                return
            except RegistryUnavailable:
                if time.monotonic() > deadline:
                    raise

    def _apply_own_contracts(self) -> None:
        own = self.folder / "contracts"
        copy = own / "reviewmesh_schemas"
        shutil.copytree(Path(reviewmesh_schemas.__file__).parent, copy)
        topics_file = copy / "topics.yaml"
        text = topics_file.read_text()
        assert f"\npartitions: {PARTITIONS}\n" in text
        topics_file.write_text(
            text.replace(f"\npartitions: {PARTITIONS}\n", f"\npartitions: {self.partitions}\n")
        )
        self.settings["PYTHONPATH"] = str(own)
        command = [sys.executable, "-m", "reviewmesh.cli", "topics", "apply"]
        environment = os.environ | {
            **self.stack.environment("operator"),
            "REVIEWMESH_PREFIX": self.prefix,
            **self.settings,
        }
        subprocess.run(command, env=environment, check=True, timeout=APPLIED_WITHIN_S)

    def start(self, ready_within_s: float = 180) -> None:
        self.apply_topics()
        for name in self.worker_ports:
            self.add(name).start()
        for name in SERVICES:
            self.add(name).start()
        self.wait_ready(ready_within_s)

    def wait_ready(self, timeout_s: float = 120) -> None:
        wait_until(
            lambda: all(process.is_ready() for process in self.processes.values()),
            timeout_s,
            "every process to be ready",
        )

    def stop(self) -> None:
        running = [p for p in self.processes.values() if p.popen and p.popen.poll() is None]
        for process in running:
            process.signal(signal.SIGKILL)
        for process in running:
            process.wait()

    def add(
        self, name: str, slot: str = "0", dies_in_transaction: int = 0, defect: str = ""
    ) -> Process:
        """A process of that service; replicas differ by their slot. See `tests.odd_service` for
        what defects there are."""
        key = name if slot == "0" else f"{name}/{slot}"
        http_port, is_worker = free_port(), name in self.worker_ports
        environment = os.environ | {
            **(self.stack.worker_environment() if is_worker else self.stack.environment(name)),
            "REVIEWMESH_PREFIX": self.prefix,
            "REVIEWMESH_SLOT": slot,
            "REVIEWMESH_HTTP__PORT": str(http_port),
            **self.settings,
        }
        for task in TASKS:
            workers = f"worker-{task}" if self.workers_per_task else "worker"
            ports = [port for name, port in self.worker_ports.items() if name.startswith(workers)]
            environment[f"REVIEWMESH_WORKERS__{task.upper()}"] = ",".join(
                f"127.0.0.1:{port}" for port in ports
            )
        if is_worker:
            environment["REVIEWMESH_WORKER__PORT"] = str(self.worker_ports[name])
            module = self.worker_command or ["tests.scripted_worker", str(self.control)]
        elif name.startswith("enricher-"):
            module = ["reviewmesh.enrich", "--task", name.removeprefix("enricher-")]
        else:
            module = [{"joiner": "reviewmesh.join"}.get(name, f"reviewmesh.{name}")]
        if dies_in_transaction:
            module = ["tests.dying_service", module[0], str(dies_in_transaction), *module[1:]]
        if defect:
            module = ["tests.odd_service", module[0], defect, *module[1:]]
        log = self.folder / f"{key.replace('/', '-')}.log"
        process = Process(key, [sys.executable, "-m", *module], environment, log, http_port)
        self.processes[key] = process
        return process

    def script(self, **script: object) -> None:
        """Tell the scripted engine what to do from now on."""
        draft = self.control.with_suffix(".new")
        draft.write_text(json.dumps(script))
        draft.replace(self.control)

    # -- records -----------------------------------------------------------------------------

    def connection(self, who: str = ADMIN) -> Connection:
        """As commands and the console have it."""
        options = self.stack.kafka(who)
        settings: dict[str, Any] = {
            "kafka": {name.replace(".", "_"): value for name, value in options.items()},
            "registry": self.stack.registry(),
            "prefix": self.prefix,
        }
        return connection_of(Settings(**settings))

    def codec(self, topic: str) -> Codec:
        return Codec(self.registry, f"{self.prefix}{topic}-value", SCHEMAS[topic])

    def producer(self, **options: str) -> Producer:
        return Producer({**self.kafka, "enable.idempotence": "true", "linger.ms": "5", **options})

    def add_console(self, folder: Path, **environment: str) -> Process:
        """A console over every process that there is by now, with its index in the folder."""
        watched = {name: process.http_port for name, process in self.processes.items()}
        console = self.add("console")
        console.environment |= {
            "REVIEWMESH_CONSOLE__PORT": str(free_port()),
            "REVIEWMESH_CONSOLE__FOLDER": str(folder / "index"),
            "REVIEWMESH_CONSOLE__PROCESSES": ",".join(
                f"{name}=127.0.0.1:{port}" for name, port in watched.items()
            ),
            **environment,
        }
        return console

    def publish(self, reviews: Iterable[dict[str, Any]]) -> int:
        """Publish as the contract says: keyed by review_id, on its murmur2 partition."""
        codec, producer, count = self.codec("reviews.raw"), self.producer(), 0
        for review in reviews:
            key = review["review_id"].encode()
            self._produce(producer, key, codec.encode(review), partition_of(key, self.partitions))
            count += 1
        assert producer.flush(30) == 0
        return count

    def publish_raw(
        self,
        value: bytes | None,
        key: bytes | None = None,
        partition: int = 0,
        topic: str = "reviews.raw",
    ) -> None:
        producer = self.producer()
        self._produce(producer, key, value, partition, topic)
        assert producer.flush(30) == 0

    def _produce(
        self,
        producer: Producer,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        topic: str = "reviews.raw",
    ) -> None:
        while True:
            try:
                producer.produce(self.prefix + topic, key=key, value=value, partition=partition)
                return
            except BufferError:
                producer.poll(0.1)

    def read(self, topic: str) -> list[dict[str, Any]]:
        """Every committed record of the topic so far, per partition in offset order."""
        codec = self.codec(topic)
        positions = self._positions.setdefault(topic, dict.fromkeys(range(self.partitions), 0))
        consumer = Consumer(
            {
                **self.kafka,
                "group.id": f"{self.prefix}reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": "false",
                "enable.partition.eof": "true",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": "20",
            }
        )
        name = self.prefix + topic
        consumer.assign([TopicPartition(name, number, at) for number, at in positions.items()])
        unread = set(positions)
        deadline = time.monotonic() + 30
        while unread and time.monotonic() < deadline:
            for message in consumer.consume(1000, 0.1):
                partition, offset = message.partition(), message.offset()
                error, value = message.error(), message.value()
                assert partition is not None
                assert offset is not None
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        positions[partition] = offset
                        unread.discard(partition)
                    continue
                positions[partition] = offset + 1
                if value is not None:
                    record = codec.decode(value)
                    record["_partition"] = partition
                    record["_offset"] = offset
                    record["_schema_id"] = int.from_bytes(value[1:5], "big")
                    record["_headers"] = dict(headers_of(message))
                    self._records[topic].append(record)
        consumer.close()
        return self._records[topic]

    def forget_enriched(self) -> None:
        """Let go of the enriched reviews read so far: `enriched` goes on behind them."""
        self._records["reviews.enriched"].clear()

    def enriched(self) -> list[dict[str, Any]]:
        return self.read("reviews.enriched")

    def dead_letters(self) -> list[dict[str, Any]]:
        return self.read("reviews.dead-letter")

    def wait_enriched(self, count: int, timeout_s: float = 60) -> list[dict[str, Any]]:
        self.wait_for(lambda: len(self.enriched()) >= count, timeout_s, f"{count} enriched reviews")
        return self.enriched()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        try:
            wait_until(condition, timeout_s, what)
        except BaseException:
            print(self.report())
            raise

    def report(self) -> str:
        """What came out so far, and the last lines of every log."""
        lines = [f"enriched so far: {len(self._records['reviews.enriched'])}"]
        for process in self.processes.values():
            tail = process.log.read_text(errors="replace").splitlines()[-15:]
            lines += [f"--- {process.name}", *tail]
        return "\n".join(lines)


def reviews(count: int, versions: int = 1, tag: str = "r") -> list[dict[str, Any]]:
    """Distinct reviews of a few lengths; `versions` of each, one round after the other."""
    return [
        review(f"{tag}-{number}", f"Version {version}, said Anna. " + "word " * (number % 40))
        for version in range(versions)
        for number in range(count)
    ]


def review(review_id: str, text: str | None, **fields: Any) -> dict[str, Any]:
    return {"review_id": review_id, "text": text, "attributes": {}, **fields}


def assert_exactly_once(
    published: Iterable[dict[str, Any]], enriched: Iterable[dict[str, Any]]
) -> None:
    """Nothing lost, nothing twice, in order per review, every record complete."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for item in published:
        wanted[item["review_id"]].append(item["text"])
    got: dict[str, list[str]] = defaultdict(list)
    for record in enriched:
        assert record["complete"], f"incomplete: {record['review_id']} {record['tasks']}"
        got[record["review_id"]].append(record["text"])
    lost = {key: texts for key, texts in wanted.items() if len(got[key]) < len(texts)}
    twice = {key: got[key] for key, texts in wanted.items() if len(got[key]) > len(texts)}
    assert not lost, f"{len(lost)} lost, such as {next(iter(lost.items()))}"
    assert not twice, f"{len(twice)} twice, such as {next(iter(twice.items()))}"
    disordered = {key: got[key] for key, texts in wanted.items() if got[key] != texts}
    assert not disordered, f"{len(disordered)} out of order"
    assert set(got) == set(wanted)
