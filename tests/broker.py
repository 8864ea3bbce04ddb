"""One real broker and registry for a whole test run, and the means to break them.

`REVIEWMESH_TEST_STACK` names the state folder of an embedded stack that already runs (start one
with `python -m tests.broker FOLDER`); else a Docker engine that answers is used (testcontainers),
else an embedded stack of the run's own. With `REVIEWMESH_TEST_SECURE=1` it is a secure one, in
which every process of a test's mesh has to show who it is.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from reviewmesh.avro.acls import grants
from reviewmesh.avro.granting import ClusterAcls
from reviewmesh.local import broker, registry
from reviewmesh.local.errors import LocalStackError
from reviewmesh.local.ports import HOST
from reviewmesh.local.secure import ADMIN, OPERATOR, Identities
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.settings import RegistrySettings

KAFKA_IMAGE = "confluentinc/cp-kafka:8.1.0"
APICURIO_IMAGE = "apicurio/apicurio-registry:3.3.3"
APICURIO_PORT = 8080
SECURE = os.environ.get("REVIEWMESH_TEST_SECURE") == "1"
FOLDER_PREFIX = "reviewmesh-test-"


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition; fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s still not: {what}")
        time.sleep(0.05)


@dataclass(frozen=True)
class TestStack:
    """The broker and the registry of this test run."""

    __test__ = False

    bootstrap_servers: str
    registry_url: str
    embedded: EmbeddedStack | None
    """None when they are containers: those cannot be stopped or killed from here."""
    identities: Identities | None = None
    """None where nobody has to show who they are."""

    def kafka(self, who: str = ADMIN) -> dict[str, str]:
        """How a client connects to the broker: what tests do, nobody else may."""
        own = {} if self.identities is None else self.identities.kafka_options(who)
        return {"bootstrap.servers": self.bootstrap_servers, **own}

    def registry(self) -> RegistrySettings:
        """How a client connects to the registry that may register schemas."""
        own: dict[str, Any] = {}
        if self.identities is not None:
            own = self.identities.registry_options(OPERATOR)
        return RegistrySettings(url=self.registry_url, **own)

    def environment(self, who: str = OPERATOR) -> dict[str, str]:
        """The settings with which a service or the command line connects."""
        found = {
            "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "REVIEWMESH_REGISTRY__URL": self.registry_url,
        }
        return found | ({} if self.identities is None else self.identities.environment(who))

    def worker_environment(self) -> dict[str, str]:
        return {} if self.identities is None else self.identities.worker_environment()

    def grant(self, prefix: str) -> None:
        """Let every service do with the topics of this prefix what it needs."""
        if self.identities is not None:
            ClusterAcls(self.kafka()).add(grants(prefix))

    def pid(self, name: str) -> int:
        """The process id of a broker or of "registry"."""
        pid = self._embedded().status_of(name).pid
        assert pid is not None, f"{name} is not running"
        return pid

    def kill(self, name: str) -> int:
        """SIGKILL it; its supervisor starts it again at once. Gives the killed process id."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def signal(self, name: str, number: int) -> None:
        """Send a signal to it: SIGSTOP hangs it, SIGCONT wakes it."""
        os.kill(self.pid(name), number)

    def stop(self, name: str) -> None:
        """Stop it in order and keep it stopped."""
        self._embedded().stop_process(name)
        wait_until(lambda: self._embedded().status_of(name).pid is None, 30, f"{name} stopped")

    def start(self, name: str) -> None:
        """Start it again and wait until it answers."""
        self._embedded().start_process(name)
        self.wait_ready(name)

    def wait_ready(self, name: str, timeout_s: float = 120, after_pid: int | None = None) -> None:
        """Wait until it answers; after a kill, give the killed process id."""
        if after_pid is not None:
            status = self._embedded().status_of
            wait_until(lambda: status(name).pid not in (None, after_pid), 60, f"{name} restarted")
        wait_until(lambda: self.answers(name), timeout_s, f"{name} ready")

    def answers(self, name: str) -> bool:
        """Whether it takes requests now."""
        if name == "registry":
            return registry.is_ready(self.registry())
        if self.embedded is None:
            return broker.is_ready(self.bootstrap_servers, self.kafka())
        info = self.embedded.info()
        return info is not None and broker.is_ready(f"{HOST}:{info.ports[name]}", self.kafka())

    def _embedded(self) -> EmbeddedStack:
        assert self.embedded is not None, "containers cannot be stopped or killed by this fixture"
        return self.embedded


@contextmanager
def running_stack() -> Iterator[TestStack]:
    """The broker and the registry of this run, ready; ended afterwards unless they were lent."""
    if lent := os.environ.get("REVIEWMESH_TEST_STACK"):
        yield _lent_stack(Path(lent))
    elif SECURE:
        with embedded_stack(secure=True) as embedded:
            yield stack_of(embedded)
    elif docker_answers():
        with _containers() as stack:
            yield stack
    else:
        with embedded_stack() as embedded:
            yield stack_of(embedded)


@contextmanager
def breakable_stack(stack: TestStack) -> Iterator[TestStack]:
    """A stack whose broker and registry may be killed: this run's own, unless it is containers."""
    if stack.embedded is not None:
        yield stack
        return
    with embedded_stack(secure=SECURE) as embedded:
        yield stack_of(embedded)


@contextmanager
def embedded_stack(brokers: int = 1, secure: bool = False) -> Iterator[EmbeddedStack]:
    """Brokers and a registry of their own in a temporary state folder."""
    _end_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
    embedded = EmbeddedStack(folder)
    try:
        embedded.up(mesh=False, brokers=brokers, secure=secure)
        yield embedded
    finally:
        embedded.down(purge=True)
        shutil.rmtree(folder, ignore_errors=True)


def _end_abandoned() -> None:
    """End what test runs left behind that were killed: their process id is in the folder's name."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*-*"):
        owner = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            # Another test run may be at it.
            with suppress(LocalStackError, OSError):
                EmbeddedStack(folder).down(purge=True)
            shutil.rmtree(folder, ignore_errors=True)


def docker_answers() -> bool:
    """Whether a Docker engine can be used; a client without an engine is no engine.

    The libraries for it are the developers': a benchmark goes without, on an embedded stack.
    """
    if shutil.which("docker") is None or find_spec("testcontainers") is None:
        return False
    import docker
    from docker.errors import DockerException

    try:
        return bool(docker.from_env(timeout=3).ping())
    except DockerException:
        return False


def stack_of(embedded: EmbeddedStack) -> TestStack:
    info = embedded.info()
    assert info is not None, f"no mesh runs from {embedded.paths.state_dir}"
    return TestStack(info.bootstrap_servers, info.registry_url, embedded, info.identities)


def _lent_stack(state_dir: Path) -> TestStack:
    return stack_of(EmbeddedStack(state_dir))


@contextmanager
def _containers() -> Iterator[TestStack]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.kafka import KafkaContainer

    apicurio = DockerContainer(APICURIO_IMAGE).with_exposed_ports(APICURIO_PORT)
    kafka_node = KafkaContainer(KAFKA_IMAGE).with_kraft()
    for key, value in broker.FIXED_PROPERTIES.items():
        if key.startswith(("transaction.", "group.", "auto.")):
            kafka_node.with_env("KAFKA_" + key.replace(".", "_").upper(), value)
    with kafka_node as kafka, apicurio:
        host, port = apicurio.get_container_host_ip(), apicurio.get_exposed_port(APICURIO_PORT)
        url = f"http://{host}:{port}{registry.CONFLUENT_API}"
        stack = TestStack(kafka.get_bootstrap_server(), url, None)
        stack.wait_ready("broker")
        stack.wait_ready("registry")
        yield stack


if __name__ == "__main__":
    print(EmbeddedStack(Path(sys.argv[1])).up(mesh=False, secure=SECURE))
