"""The embedded stack on the real thing: started, crashed, killed, stopped, started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from reviewmesh.local.errors import AlreadyRunningError, LocalStackError
from reviewmesh.local.ports import is_free
from reviewmesh.local.processes import marked_processes
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.state import StackInfo
from tests.broker import embedded_stack, wait_until

SCHEMA = {"type": "record", "name": "Probe", "fields": [{"name": "x", "type": "int"}]}


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedStack]:
    """A stack that only these tests use: they take it down and kill it."""
    with embedded_stack() as embedded:
        yield embedded


@pytest.fixture
def running(own: EmbeddedStack) -> StackInfo:
    """The stack of this module, started again when the test before stopped it."""
    return own.info() or own.up(mesh=False)


def test_ps_shows_every_process_with_its_pid_port_and_log(
    own: EmbeddedStack, running: StackInfo
) -> None:
    processes = {process.name: process for process in own.ps()}

    assert processes.keys() == {"broker", "registry"}
    for name, process in processes.items():
        assert process.state in ("STARTING", "RUNNING")
        assert process.pid is not None and psutil.pid_exists(process.pid)
        assert process.port == running.ports[name]
        assert process.log.stat().st_size > 0


def test_a_second_up_is_refused_and_changes_nothing(own: EmbeddedStack, running: StackInfo) -> None:
    before = [process.pid for process in own.ps()]

    with pytest.raises(AlreadyRunningError, match="already runs"):
        EmbeddedStack(own.paths.state_dir).up(mesh=False)

    assert [process.pid for process in own.ps()] == before


def test_a_killed_broker_is_restarted_and_keeps_its_records(
    own: EmbeddedStack, running: StackInfo
) -> None:
    topic = _topic_with_record(running, b"before the kill")
    before = own.status_of("broker")
    assert before.pid is not None

    os.kill(before.pid, signal.SIGKILL)

    wait_until(lambda: own.status_of("broker").restarts == before.restarts + 1, 10, "a restart")
    assert _first_record(running, topic) == b"before the kill"
    assert own.status_of("broker").pid != before.pid


def test_a_killed_broker_is_fenced_before_it_starts_again(
    own: EmbeddedStack, running: StackInfo
) -> None:
    topic = _topic_with_record(running, b"fenced")
    log, pid = _broker(own)
    told = log.stat().st_size

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: "has been unfenced" in _since(log, told), 60, "the broker is back")
    lines = _since(log, told)
    # Started as the leader that it was, it would leave out the markers of ending transactions.
    assert lines.index("Fencing broker 1 ") < lines.index("Starting broker")
    assert "DUPLICATE_BROKER_REGISTRATION" not in lines
    assert _first_record(running, topic) == b"fenced"


def test_a_broker_killed_again_while_it_is_fenced_comes_back(
    own: EmbeddedStack, running: StackInfo
) -> None:
    topic = _topic_with_record(running, b"killed twice")
    log, pid = _broker(own)
    told = log.stat().st_size
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "Starting controller" in _since(log, told), 30, "the controller starts")
    _, launcher = _broker(own)
    told = log.stat().st_size

    # Its controller goes on alone, with the port and the lock on the folder.
    os.kill(launcher, signal.SIGKILL)

    wait_until(lambda: "has been unfenced" in _since(log, told), 60, "the broker is back")
    assert _first_record(running, topic) == b"killed twice"
    folder = str(own.paths.broker_dir)
    kafkas = [p for p in psutil.process_iter(["cmdline"]) if _runs_kafka(p.info["cmdline"], folder)]
    assert [process.pid for process in kafkas] == [own.status_of("broker").pid]


def test_schema_ids_survive_a_kill_of_the_registry(own: EmbeddedStack, running: StackInfo) -> None:
    schema_id = _register(running.registry_url, f"probe-{uuid.uuid4().hex}-value")
    before = own.status_of("registry")
    assert before.pid is not None

    os.kill(before.pid, signal.SIGKILL)

    wait_until(lambda: own.status_of("registry").restarts > before.restarts, 10, "a restart")
    wait_until(lambda: _schema(running.registry_url, schema_id) == SCHEMA, 30, "the schema back")


def test_a_stopped_process_stays_stopped_until_it_is_started(
    own: EmbeddedStack, running: StackInfo
) -> None:
    own.stop_process("registry")
    wait_until(lambda: own.status_of("registry").state == "STOPPED", 15, "registry stopped")
    assert is_free(running.ports["registry"])

    own.start_process("registry")
    wait_until(lambda: _answers(running.registry_url), 30, "registry started")


def test_up_takes_over_from_a_killed_supervisor_with_its_data_and_ports(
    own: EmbeddedStack, running: StackInfo
) -> None:
    assert running.supervisor_pid is not None
    topic = _topic_with_record(running, b"before the supervisor was killed")
    orphans = [process.pid for process in own.ps()]
    os.kill(running.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: not running.is_running(), 5, "the supervisor gone")

    assert [process.state for process in own.ps()] == ["UNSUPERVISED", "UNSUPERVISED"]
    again = own.up(mesh=False)

    assert not any(_lives(pid) for pid in orphans)
    assert again.ports == running.ports
    assert _first_record(again, topic) == b"before the supervisor was killed"


def test_what_the_mesh_writes_is_for_its_user_alone(own: EmbeddedStack, running: StackInfo) -> None:
    open_to_others = [
        str(path)
        for path in own.paths.state_dir.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]

    assert open_to_others == []


def test_ps_tells_a_hung_process_from_one_that_works(
    own: EmbeddedStack, running: StackInfo
) -> None:
    assert {name: health.words for name, health in own.health().items()} == {
        "broker": "ready",
        "registry": "ready",
    }
    registry_pid = own.status_of("registry").pid
    assert registry_pid is not None

    os.kill(registry_pid, signal.SIGSTOP)
    try:
        assert own.status_of("registry").state in ("STARTING", "RUNNING")
        health = own.health()
    finally:
        os.kill(registry_pid, signal.SIGCONT)

    assert health["broker"].ready
    assert not health["registry"].ready and "no answer" in health["registry"].words


def test_a_port_that_clients_know_is_not_exchanged_for_another(
    own: EmbeddedStack, running: StackInfo
) -> None:
    own.down()
    port = running.ports["broker"]

    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(LocalStackError, match=f"{port} .*pid {os.getpid()}.*remove .*stack.json"),
    ):
        own.up(mesh=False)

    assert own.info() is None
    assert own.up(mesh=False).ports == running.ports


def test_down_leaves_no_process_and_no_port_and_purge_takes_the_data(
    own: EmbeddedStack, running: StackInfo
) -> None:
    before = [process.pid for process in own.ps()]

    assert own.down()

    assert own.ps() == [] and marked_processes(running.stack_id) == []
    assert not any(_lives(pid) for pid in before)
    assert all(is_free(port) for port in running.ports.values())
    assert own.info() is None
    assert (own.paths.broker_dir / "data" / "meta.properties").exists()
    assert not own.down(purge=True)
    assert not own.paths.state_dir.exists()


def test_down_where_nothing_was_ever_started_says_so(tmp_path: Path) -> None:
    assert not EmbeddedStack(tmp_path / "nothing").down(purge=True)
    assert EmbeddedStack(tmp_path / "nothing").ps() == []


@pytest.mark.parametrize("name", ["REVIEWMESH_STATE_DIR", "REVIEWMESH_CACHE_DIR"])
@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_a_folder_that_cannot_be_made_is_named(
    name: str, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    folders = {"REVIEWMESH_STATE_DIR": tmp_path / "state", "REVIEWMESH_CACHE_DIR": tmp_path / "c"}
    folders[name] = tmp_path / "file" / inside
    monkeypatch.setenv("REVIEWMESH_CACHE_DIR", str(folders["REVIEWMESH_CACHE_DIR"]))

    with pytest.raises(LocalStackError, match=rf"{tmp_path}/file.*{name}"):
        EmbeddedStack(folders["REVIEWMESH_STATE_DIR"]).up(mesh=False)


def _broker(own: EmbeddedStack) -> tuple[Path, int]:
    status = own.status_of("broker")
    assert status.pid is not None
    return status.log, status.pid


def _since(log: Path, position: int) -> str:
    return log.read_bytes()[position:].decode(errors="replace")


def _runs_kafka(command: list[str] | None, folder: str) -> bool:
    return command is not None and "kafka.Kafka" in command and command[-1].startswith(folder)


def _lives(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _topic_with_record(info: StackInfo, value: bytes) -> str:
    topic = f"probe-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": info.bootstrap_servers})
    for created in admin.create_topics([NewTopic(topic, num_partitions=1)]).values():
        created.result(timeout=10)
    producer = Producer({"bootstrap.servers": info.bootstrap_servers, "enable.idempotence": True})
    producer.produce(topic, value)
    assert producer.flush(10) == 0
    return topic


def _first_record(info: StackInfo, topic: str) -> bytes:
    settings = {"bootstrap.servers": info.bootstrap_servers, "group.id": "probe"}
    consumer = Consumer(settings | {"enable.auto.commit": "false"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        message = consumer.poll(30)
        assert message is not None and message.error() is None
        value = message.value()
        assert isinstance(value, bytes)
        return value
    finally:
        consumer.close()


def _register(registry_url: str, subject: str) -> int:
    request = urllib.request.Request(
        f"{registry_url}/subjects/{subject}/versions",
        data=json.dumps({"schema": json.dumps(SCHEMA)}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return int(json.load(response)["id"])


def _schema(registry_url: str, schema_id: int) -> object:
    try:
        with urllib.request.urlopen(f"{registry_url}/schemas/ids/{schema_id}", timeout=2) as answer:
            return json.loads(json.load(answer)["schema"])
    except OSError:
        return None


def _answers(registry_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{registry_url}/subjects", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
