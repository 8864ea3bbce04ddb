"""Three embedded brokers under test: who leads and who coordinates what, and how to break them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient

from reviewmesh.local import broker
from reviewmesh.local.ports import HOST
from tests.broker import TestStack, embedded_stack, stack_of, wait_until
from tests.mesh import free_port
from tests.proxy import CuttableProxy

BROKERS = broker.names(3)
TRANSACTIONS = "__transaction_state"
LISTENER = "PROXIED"
IN_SYNC_WITHIN_S = 120


class Cluster:
    """Brokers are named as `ps` names them."""

    def __init__(self, stack: TestStack, proxies: dict[str, CuttableProxy]) -> None:
        self.stack = stack
        self.proxies = proxies
        self.admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers, "log_level": 0})

    @property
    def proxied_servers(self) -> str:
        """For a client that reaches every broker through its proxy only."""
        return ",".join(f"{HOST}:{proxy.port}" for proxy in self.proxies.values())

    def leader(self, topic: str, partition: int) -> str:
        leader: int = self._topic(topic).partitions[partition].leader
        return BROKERS[leader - 1]

    def coordinator_of_group(self, group: str) -> str:
        described = self.admin.describe_consumer_groups([group], request_timeout=30)
        coordinator: int = described[group].result(30).coordinator.id
        return BROKERS[coordinator - 1]

    def coordinator_of_transactions(self, transactional_id: str) -> str:
        number = java_hash(transactional_id) % len(self._topic(TRANSACTIONS).partitions)
        return self.leader(TRANSACTIONS, number)

    def kill(self, name: str) -> None:
        """SIGKILL it; its supervisor starts it again at once."""
        self.stack.kill(name)

    def kill_and_keep_away(self, name: str) -> None:
        """SIGKILL it, and stop what its supervisor starts in its place."""
        killed = self.stack.kill(name)
        wait_until(lambda: self._status(name) not in (None, killed), 60, f"{name} restarted")
        self.stack.stop(name)

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        pid = self.stack.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wait_in_sync(self) -> None:
        """Until every partition, those of Kafka too, is on all three again."""
        for name in BROKERS:
            self.stack.wait_ready(name)
        wait_until(self._is_in_sync, IN_SYNC_WITHIN_S, "all replicas in sync")

    def move_leaders_back(self) -> None:
        """What was led by a broker that came back is led by it again; coordinators move with it."""
        asked = [
            TopicPartition(topic, number)
            for topic, found in self.admin.list_topics(timeout=30).topics.items()
            for number, at in found.partitions.items()
            if at.leader != at.replicas[0]
        ]
        if asked:
            self.admin.elect_leaders(ElectionType.PREFERRED, asked).result(60)

    def _status(self, name: str) -> int | None:
        assert self.stack.embedded is not None
        return self.stack.embedded.status_of(name).pid

    def _topic(self, name: str) -> Any:
        return self.admin.list_topics(name, timeout=30).topics[name]

    def _is_in_sync(self) -> bool:
        topics = self.admin.list_topics(timeout=30).topics.values()
        return all(
            len(at.isrs) == len(at.replicas) for found in topics for at in found.partitions.values()
        )


def java_hash(text: str) -> int:
    """Java's `String.hashCode`, without its sign, as Kafka's `Utils.abs` has it."""
    value = 0
    for byte in text.encode("utf-16-be")[1::2]:
        value = (31 * value + byte) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Three brokers, each with a second listener that is reached through a proxy."""
    proxies: dict[str, CuttableProxy] = {}
    prepare = broker.prepare

    def prepare_with_proxies(
        nodes: list[broker.Node], own: Mapping[str, str] | None = None
    ) -> None:
        prepare(nodes, own)
        for name, node in zip(BROKERS, nodes, strict=True):
            proxies[name] = CuttableProxy(free_port(), free_port())
            _add_listener(node, proxies[name])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "prepare", prepare_with_proxies)
        with embedded_stack(brokers=3) as embedded:
            for proxy in proxies.values():
                proxy.start()
            try:
                yield Cluster(stack_of(embedded), proxies)
            finally:
                for proxy in proxies.values():
                    proxy.stop()


def _add_listener(node: broker.Node, proxy: CuttableProxy) -> None:
    """Of a property that is there twice, Java takes the last."""
    file = broker.properties_file(node.folder)
    found = dict(line.split("=", 1) for line in file.read_text().splitlines())
    more = {
        "listeners": f"{LISTENER}://{HOST}:{proxy.target}",
        "advertised.listeners": f"{LISTENER}://{HOST}:{proxy.port}",
        "listener.security.protocol.map": f"{LISTENER}:PLAINTEXT",
    }
    with file.open("a") as out:
        out.writelines(f"{key}={found[key]},{value}\n" for key, value in more.items())
