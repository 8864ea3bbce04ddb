"""`reviewmesh up`, `ps` and `down` as a user runs them, with the whole mesh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reviewmesh.local import programs
from reviewmesh.local.monitoring import targets_of
from reviewmesh.local.ports import HOST, is_free
from reviewmesh.local.processes import marked_processes
from reviewmesh.local.stack import EmbeddedStack
from tests.broker import wait_until
from tests.mesh import SERVICES
from tests.prometheus_server import Prometheus

REVIEWMESH = Path(sys.executable).with_name("reviewmesh")
ALL = ["broker", "registry", "worker", "intake", "joiner", "lag", "judge", "console"]
ALL += ["enricher-ner", "enricher-topic", "enricher-sentiment"]
ALL += ["insights"] if programs.insights_python() else []
UP_TIMEOUT_S = 240


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[EmbeddedStack]:
    """A state folder in which nothing was started yet, and nothing is left running."""
    stack = EmbeddedStack(tmp_path / "state")
    yield stack
    stack.down(purge=True)


def _reviewmesh(stack: EmbeddedStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REVIEWMESH), *arguments],
        env=_environment(stack),
        capture_output=True,
        text=True,
        timeout=UP_TIMEOUT_S,
        check=False,
    )


def _environment(stack: EmbeddedStack) -> dict[str, str]:
    return {**os.environ, "REVIEWMESH_STATE_DIR": str(stack.paths.state_dir), "COLUMNS": "200"}


def test_up_in_the_foreground_runs_everything_until_it_is_told_to_stop(
    stack: EmbeddedStack,
) -> None:
    foreground = subprocess.Popen(
        [str(REVIEWMESH), "up"],
        env=_environment(stack),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert foreground.stderr is not None
    seen = ""
    for line in foreground.stderr:
        seen += line
        if line.startswith("state"):
            break
    assert foreground.poll() is None, seen
    info = stack.info()
    assert info is not None

    shown = _reviewmesh(stack, "ps")
    second = _reviewmesh(stack, "up", "-d")
    foreground.send_signal(signal.SIGTERM)
    foreground.communicate(timeout=60)

    assert shown.returncode == 0
    assert all(name in shown.stdout for name in ALL)
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert foreground.returncode == 0
    assert marked_processes(info.stack_id) == []
    assert all(is_free(port) for port in info.ports.values())


def test_a_detached_mesh_is_shown_restarts_what_crashed_and_is_taken_down(
    stack: EmbeddedStack,
) -> None:
    up = _reviewmesh(stack, "up", "-d", "--workers", "2", "--scale", "enricher-ner=2")
    assert up.returncode == 0, up.stderr
    info = stack.info()
    assert info is not None
    assert _addresses_of_workers(stack) == [
        f"{HOST}:{info.ports[name]}" for name in ("worker.grpc", "worker-1.grpc")
    ]
    intake, worker = stack.status_of("intake").pid, stack.status_of("worker").pid
    assert intake is not None and worker is not None
    # While the group's partitions move to the second enricher, it says that it is not ready.
    wait_until(lambda: all(h.ready for h in stack.health().values()), 60, "partitions have moved")
    shown = _reviewmesh(stack, "ps", "--json")
    assert shown.returncode == 0, shown.stdout
    assert {process["process"] for process in json.loads(shown.stdout) if process["ready"]} == {
        *ALL,
        "worker-1",
        "enricher-ner-1",
    }

    os.kill(worker, signal.SIGSTOP)
    hung, listed = _reviewmesh(stack, "ps"), _reviewmesh(stack, "ps", "--json")
    os.kill(worker, signal.SIGCONT)
    assert (hung.returncode, listed.returncode) == (1, 1)
    assert "hangs: /healthz gives no answer" in hung.stdout
    [of_worker] = [each for each in json.loads(listed.stdout) if each["process"] == "worker"]
    assert (of_worker["state"], of_worker["ready"]) == ("RUNNING", False)

    os.kill(intake, signal.SIGKILL)
    wait_until(lambda: stack.status_of("intake").pid not in (None, intake), 10, "intake is back")

    stopped, misspelt = (
        _reviewmesh(stack, "stop", "joiner", "intake"),
        _reviewmesh(stack, "stop", "x"),
    )
    assert stopped.returncode == 0, stopped.stderr
    assert (stack.status_of("joiner").pid, stack.status_of("intake").pid) == (None, None)
    assert misspelt.returncode == 2 and "got x" in misspelt.stderr
    assert _reviewmesh(stack, "start", "joiner", "intake").returncode == 0
    wait_until(lambda: all(h.ready for h in stack.health().values()), 60, "all is ready again")
    _logs_and_restart(stack)
    _monitored(stack)
    down = _reviewmesh(stack, "down", "--purge")

    assert down.returncode == 0
    assert marked_processes(info.stack_id) == []
    assert not stack.paths.state_dir.exists()
    assert _reviewmesh(stack, "ps").returncode == 1
    assert _reviewmesh(stack, "stop", "joiner").returncode == 1


def _addresses_of_workers(stack: EmbeddedStack) -> list[str]:
    """As each enricher has them."""
    exported = _reviewmesh(stack, "env").stdout
    [line] = [each for each in exported.splitlines() if "REVIEWMESH_WORKERS__NER=" in each]
    return line.partition("=")[2].split(",")


def _logs_and_restart(stack: EmbeddedStack) -> None:
    before = stack.status_of("intake").pid
    restarted = _reviewmesh(stack, "restart", "intake")
    assert restarted.returncode == 0, restarted.stderr
    assert stack.status_of("intake").pid not in (None, before)
    assert all(health.ready for health in stack.health().values())
    shown = _reviewmesh(stack, "logs", "-n", "1000", "intake")
    assert shown.returncode == 0, shown.stderr
    assert " info " in shown.stdout and '{"' not in shown.stdout
    several = _reviewmesh(stack, "logs", "--json", "-n", "2", "intake", "broker")
    lines = [json.loads(line) for line in several.stdout.splitlines()]
    assert [line["process"] for line in lines] == ["intake", "intake", "broker", "broker"]
    assert _reviewmesh(stack, "logs", "x").returncode == 2


def _monitored(stack: EmbeddedStack) -> None:
    """By a real Prometheus and a real Alertmanager, until Ctrl-C."""
    monitor = subprocess.Popen(
        [str(REVIEWMESH), "monitor"],
        env=_environment(stack),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert monitor.stderr is not None
    said: dict[str, str] = {}
    for line in monitor.stderr:
        name, _, address = line.partition(" ")
        said[name] = address.strip()
        if name == "state":
            break
    assert "prometheus" in said, said
    server = Prometheus(said["prometheus"])
    info = stack.info()
    assert info is not None
    scraped = {f"http://{target['targets'][0]}/metrics" for target in targets_of(info.ports)}
    assert len(scraped) > len(SERVICES)
    wait_until(lambda: server.targets_up() == scraped, 60, "every process is scraped")
    measured = "reviewmesh_lag_measurement_age_seconds"
    wait_until(lambda: bool(server.query(measured)), 60, "the lag service is read")
    # Its interval is a quarter of a minute.
    wait_until(lambda: {"ServiceDown", "GroupStuck"} <= server.alerts(), 60, "the rules")
    assert server.alertmanagers() == [f"{said['alertmanager']}/api/v2/alerts"]
    assert "another `reviewmesh monitor` runs" in _reviewmesh(stack, "monitor").stderr

    monitor.send_signal(signal.SIGINT)
    monitor.communicate(timeout=60)
    assert monitor.returncode == 0
    for name in ("prometheus", "alertmanager"):
        assert is_free(int(said[name].rpartition(":")[2]))
        assert _reviewmesh(stack, "logs", name).stdout


def test_ctrl_c_again_and_again_while_it_starts_leaves_nothing_running(
    stack: EmbeddedStack,
) -> None:
    starting = subprocess.Popen(
        [str(REVIEWMESH), "up"], env=_environment(stack), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(stack.ps()) == len(ALL), 60, "its processes")
    info = stack.info()
    assert info is not None

    starting.send_signal(signal.SIGINT)
    # Its processes are being ended: now as good a moment for another as any.
    wait_until(lambda: len(marked_processes(info.stack_id)) < 5, 60, "most of it ended")
    starting.send_signal(signal.SIGINT)

    assert "nothing is left running" in starting.communicate(timeout=60)[1]
    assert starting.returncode == 1
    assert marked_processes(info.stack_id) == []


@pytest.mark.parametrize("command", ["up", "down", "demo"])
def test_a_state_folder_that_cannot_be_made_is_a_message_and_no_traceback(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = _reviewmesh(EmbeddedStack(tmp_path / "file"), command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/file" in done.stderr
