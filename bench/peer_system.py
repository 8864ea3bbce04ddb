"""A peer as a system under load: its replicas, and the same workers and topics as the mesh's."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bench.system import pids_of
from reviewmesh_schemas.names import TASKS
from tests.broker import TestStack, wait_until
from tests.mesh import Mesh, Process

PYTHON = Path(".venv-bench/bin/python")
SOURCES = ("services", "protos", "schemas", ".")
STAGES = ("intake", *(f"enricher-{task}" for task in TASKS), "joiner")
JOINED_WITHIN_S = 90.0
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Setting:
    """One step of the sweep: replicas of each enricher, and what else its stages are told."""

    peer: str
    replicas: int
    arguments: tuple[str, ...] = ()
    words: str = ""


class PeerSystem:
    """Topics, workers and schemas are those of a mesh that has no services."""

    def __init__(
        self, stack: TestStack, folder: Path, setting: Setting, worker_command: list[str]
    ) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._setting = setting
        self._mesh = Mesh(
            stack,
            f"p{uuid.uuid4().hex[:6]}.",
            folder,
            workers_per_task=True,
            worker_command=worker_command,
        )
        self._admin: Any = AdminClient({**self._mesh.kafka})
        self._replicas: dict[str, Process] = {}

    @property
    def prefix(self) -> str:
        return self._mesh.prefix

    def pids(self) -> dict[str, int]:
        return pids_of(self._mesh.processes | self._replicas)

    def report(self) -> str:
        lines = [self._mesh.report()]
        for name, process in self._replicas.items():
            tail = process.log.read_text(errors="replace").splitlines()[-8:]
            lines += [f"--- {name}", *tail]
        return "\n".join(lines)

    def start(self) -> None:
        self._mesh.apply_topics()
        for name in self._mesh.worker_ports:
            self._mesh.add(name).start()
        self._mesh.wait_ready()
        for stage in STAGES:
            for slot in range(self._replicas_of(stage)):
                self._start_replica(stage, slot)
        wait_until(self._all_joined, JOINED_WITHIN_S, f"the groups of {self._setting} are stable")

    def _replicas_of(self, stage: str) -> int:
        return self._setting.replicas if stage.startswith("enricher-") else 1

    def _start_replica(self, stage: str, slot: int) -> None:
        name = f"{stage}/{slot}"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(source).resolve()) for source in SOURCES),
            "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": self._mesh.stack.bootstrap_servers,
            "REVIEWMESH_REGISTRY__URL": self._mesh.stack.registry_url,
            "REVIEWMESH_PREFIX": self.prefix,
            "REVIEWMESH_SLOT": str(slot),
        }
        for task in TASKS:
            port = self._mesh.worker_ports[f"worker-{task}"]
            environment[f"REVIEWMESH_WORKERS__{task.upper()}"] = f"127.0.0.1:{port}"
        arguments = list(self._setting.arguments)
        if self._setting.peer == "quix":
            arguments = [str(self._folder / f"state-{stage}-{slot}")]
        module = f"bench.peers.{self._setting.peer}"
        command = [str(PYTHON), "-m", module, stage, *arguments]
        log = self._folder / f"{stage}-{slot}.log"
        self._replicas[name] = Process(name, command, environment, log, 0)
        self._replicas[name].start()

    def _all_joined(self) -> bool:
        if ended := [name for name, p in self._replicas.items() if p.popen and p.popen.poll()]:
            raise AssertionError(f"ended: {', '.join(ended)}")
        names = {self.prefix + stage: self._replicas_of(stage) for stage in STAGES}
        futures = self._admin.describe_consumer_groups(
            list(names), request_timeout=REQUEST_TIMEOUT_S
        )
        try:
            groups = [future.result(REQUEST_TIMEOUT_S) for future in futures.values()]
        except KafkaException:
            # Nobody has asked for a coordinator of the group yet.
            return False
        return all(
            group.state.name == "STABLE" and len(group.members) == names[group.group_id]
            for group in groups
        )

    def stop(self) -> None:
        running = [p for p in self._replicas.values() if p.popen and p.popen.poll() is None]
        for process in running:
            process.signal(signal.SIGKILL)
        for process in running:
            process.wait()
        self._mesh.stop()


@contextmanager
def running_peer(
    stack: TestStack, folder: Path, setting: Setting, worker_command: list[str]
) -> Iterator[PeerSystem]:
    """Started, every group stable; ended when left."""
    system = PeerSystem(stack, folder, setting, worker_command)
    try:
        system.start()
        yield system
    except AssertionError as error:
        raise AssertionError(f"{error}\n{system.report()}") from error
    finally:
        system.stop()
