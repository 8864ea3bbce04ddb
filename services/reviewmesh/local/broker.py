"""The embedded Kafka cluster: one node or three in KRaft mode, each broker and controller at once.

Of three nodes any one may fail: a controller needs a majority, and a record lies on two brokers.

`python -m reviewmesh.local.broker KAFKA_DIR BROKER_DIR` formats new storage, fences a killed
predecessor, and then becomes the broker (exec): supervisord sees one process with one id.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from reviewmesh.local.java import java_command
from reviewmesh.local.paths import make_private
from reviewmesh.local.ports import HOST

NUMBERS = (1, 3)
"""How many brokers a cluster may have: two would fail with either of them."""
# Three share the machine that one had.
MAX_HEAP_MB = {1: 512, 3: 256}
FORMAT_HEAP_MB = 128
FORMAT_TIMEOUT_S = 240

# Of a single node, and timings under which a killed process is noticed in seconds.
FIXED_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "BROKER",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "num.partitions": "6",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Internal topics of 50 partitions cost seconds at the first start and buy one node nothing.
    "offsets.topic.num.partitions": "10",
    "transaction.state.log.num.partitions": "10",
    "share.coordinator.state.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    # A broker that hangs for longer is fenced by its own controller, and its partitions have no
    # leader. Kafka then treats the partitions as deleted and does not write transaction markers to
    # them: readers of committed records block there for ever. No other broker could lead them.
    "broker.session.timeout.ms": "600000",
    "broker.heartbeat.interval.ms": "1000",
    # How soon the open transaction of a killed producer is aborted.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # The default of 128 MB would be a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.segment.bytes": "134217728",
    "log.retention.hours": "168",
}

# What differs with three nodes. Another one leads what a killed one led as soon as its session is
# over: with Kafka's own timings, which clusters of companies have too.
OF_THREE_PROPERTIES = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "broker.session.timeout.ms": "9000",
    "broker.heartbeat.interval.ms": "1000",
}

# The controller alone, while it fences a killed broker.
FENCING_PROPERTIES = {
    "process.roles": "controller",
    "broker.session.timeout.ms": "600",
    "broker.heartbeat.interval.ms": "300",
}
FENCING_HEAP_MB = 256
FENCING_TIMEOUT_S = 60
CONTROLLER_LEADS = "Performing controller activation"
# Longer than a session after it leads: then nothing had to be fenced.
NOTHING_TO_FENCE_AFTER_S = 3.0
FENCED = "Fencing broker 1 "
WRITTEN_AFTER_S = 0.5

LOG_OPTIONS = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    # Logs every setting, four hundred lines, at each start.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
    # These log for every transaction, of which there is one every 20 ms.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.transaction=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.storage.internals.log.LogCleaner=warn",
)


@dataclass(frozen=True, slots=True)
class Node:
    """One process of the cluster."""

    node_id: int
    folder: Path
    port: int
    controller_port: int


def names(number: int) -> tuple[str, ...]:
    """What the processes of so many brokers are called."""
    return ("broker", *(f"broker-{node_id}" for node_id in range(2, number + 1)))


def number_kept(folders: Sequence[Path]) -> int | None:
    """How many brokers the data in these folders belongs to; None where there is none."""
    if not any(_is_formatted(folder) for folder in folders):
        return None
    return len(folders) if cluster_id_file(folders[0]).exists() else 1


def data_dir(broker_dir: Path) -> Path:
    return broker_dir / "data"


def properties_file(broker_dir: Path) -> Path:
    return broker_dir / "server.properties"


def fencing_file(broker_dir: Path) -> Path:
    return broker_dir / "fencing.properties"


def cluster_id_file(broker_dir: Path) -> Path:
    """What several nodes have in common; a single one draws its id when it formats its storage."""
    return broker_dir / "cluster-id"


def prepare(nodes: Sequence[Node], own: Mapping[str, str] | None = None) -> None:
    """Write the configurations of the nodes of one cluster; existing data is kept.

    `own`: properties of a secure mesh.
    """
    for node in nodes:
        make_private(node.folder)
    if len(nodes) == 1:
        _prepare_single(nodes[0], own or {})
    else:
        _prepare_several(nodes, own or {})


def _prepare_single(node: Node, own: Mapping[str, str]) -> None:
    cluster_id_file(node.folder).unlink(missing_ok=True)
    controller = _controller(node)
    properties = _properties(node, own) | {
        "controller.quorum.bootstrap.servers": f"{HOST}:{node.controller_port}"
    }
    _write(properties_file(node.folder), properties)
    alone = {"listeners": controller, "advertised.listeners": controller}
    _write(fencing_file(node.folder), properties | alone | FENCING_PROPERTIES)


def _prepare_several(nodes: Sequence[Node], own: Mapping[str, str]) -> None:
    """The voters are in the configuration, not in the metadata: their ports may change."""
    shared = cluster_id_file(nodes[0].folder)
    cluster_id = shared.read_text("ascii") if shared.exists() else _new_cluster_id()
    voters = ",".join(f"{node.node_id}@{HOST}:{node.controller_port}" for node in nodes)
    for node in nodes:
        cluster_id_file(node.folder).write_text(cluster_id, "ascii")
        _write(
            properties_file(node.folder),
            _properties(node, own) | OF_THREE_PROPERTIES | {"controller.quorum.voters": voters},
        )


def _properties(node: Node, own: Mapping[str, str]) -> dict[str, str]:
    both = f"BROKER://{HOST}:{node.port},{_controller(node)}"
    return FIXED_PROPERTIES | {
        "node.id": str(node.node_id),
        "listeners": both,
        "advertised.listeners": both,
        "log.dirs": str(data_dir(node.folder)),
        **own,
    }


def _controller(node: Node) -> str:
    return f"CONTROLLER://{HOST}:{node.controller_port}"


def _new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _write(file: Path, properties: dict[str, str]) -> None:
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))


def command(kafka_dir: Path, broker_dir: Path) -> list[str]:
    """What supervisord runs."""
    return [sys.executable, "-m", "reviewmesh.local.broker", str(kafka_dir), str(broker_dir)]


def is_ready(address: str, client: Mapping[str, str], timeout_s: float = 2.0) -> bool:
    """Whether the broker at this address answers a metadata request and knows itself.

    `client`: how to log in.
    """
    # Refused connections are normal while it starts: do not log them.
    admin = AdminClient({**client, "bootstrap.servers": address, "log_level": 0})
    try:
        known = admin.list_topics(timeout=timeout_s).brokers.values()
    except KafkaException:
        return False
    # A broker that its controller has not let in yet knows the others only.
    return any(address == f"{broker.host}:{broker.port}" for broker in known)


def _class_path(kafka_dir: Path) -> str:
    return f"{kafka_dir}/*"


def _format_storage(kafka_dir: Path, broker_dir: Path) -> None:
    if _is_formatted(broker_dir):
        return
    shared = cluster_id_file(broker_dir)
    alone = () if shared.exists() else ("--standalone",)
    cluster_id = shared.read_text("ascii") if shared.exists() else _new_cluster_id()
    subprocess.run(
        java_command(
            FORMAT_HEAP_MB,
            *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", _class_path(kafka_dir)),
            *("kafka.tools.StorageTool", "format", *alone, "--ignore-formatted"),
            *("-t", cluster_id, "-c", str(properties_file(broker_dir))),
        ),
        check=True,
        timeout=FORMAT_TIMEOUT_S,
    )


def _is_formatted(broker_dir: Path) -> bool:
    return (data_dir(broker_dir) / "meta.properties").exists()


def _fence_killed(kafka_dir: Path, broker_dir: Path) -> None:
    """Run the controller alone until it has fenced the broker whose process was killed.

    Otherwise the next process finds in its metadata that it leads every partition, completes open
    transactions, is fenced as its predecessor, and never writes their markers.
    """
    data = data_dir(broker_dir)
    if not any(data.glob("__cluster_metadata-0/*.log")) or (data / ".kafka_cleanshutdown").exists():
        return
    for process in psutil.process_iter(["cmdline"]):
        # Left by a predecessor that was killed while it fenced.
        if str(fencing_file(broker_dir)) in (process.info["cmdline"] or ()):
            process.kill()
            process.wait(FENCING_TIMEOUT_S)
    command = java_command(
        FENCING_HEAP_MB,
        *LOG_OPTIONS,
        *("-cp", _class_path(kafka_dir), "kafka.Kafka", str(fencing_file(broker_dir))),
        classes_of=kafka_dir,
        archives=False,
    )
    controller = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    signal.signal(signal.SIGTERM, lambda number, frame: controller.kill())
    _after(FENCING_TIMEOUT_S, controller.kill)
    assert controller.stdout is not None
    for line in controller.stdout:
        print(line, end="", flush=True)
        if CONTROLLER_LEADS in line:
            _after(NOTHING_TO_FENCE_AFTER_S, controller.terminate)
        elif FENCED in line:
            _after(WRITTEN_AFTER_S, controller.terminate)
    if controller.wait() == -signal.SIGKILL:
        sys.exit("the broker that was killed has not been fenced: start again")


def _after(seconds: float, action: Callable[[], None]) -> None:
    """Run the action after a delay, in a daemon thread."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def main(kafka_dir: Path, broker_dir: Path) -> None:
    """Format new storage, fence a killed broker, then become the broker."""
    _format_storage(kafka_dir, broker_dir)
    several = cluster_id_file(broker_dir).exists()
    # Of several, the others fence it.
    if not several:
        _fence_killed(kafka_dir, broker_dir)
    broker = java_command(
        MAX_HEAP_MB[3 if several else 1],
        *LOG_OPTIONS,
        *("-cp", _class_path(kafka_dir), "kafka.Kafka", str(properties_file(broker_dir))),
        classes_of=kafka_dir,
    )
    os.execv(broker[0], broker)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
