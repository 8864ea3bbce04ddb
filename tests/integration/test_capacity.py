"""`reviewmesh capacity worker` against the worker's own server with the scripted engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reviewmesh.capacity.file import read_capacity
from reviewmesh_schemas.names import ACCEPTED
from tests.broker import TestStack
from tests.inference import TASK, ScriptedWorker
from tests.mesh import PARTITIONS, Mesh, free_port

DELAY_S = 0.2
# Long, so that a machine that stands still for a moment is no finding.
OBJECTIVE_S = 15.0


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedWorker]:
    started = ScriptedWorker(tmp_path_factory.mktemp("worker"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


def command(address: str, output: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "reviewmesh.cli", "capacity", "worker", "--task", TASK),
        *("--address", address, "--objective-s", str(OBJECTIVE_S), "--output", str(output)),
        *("--step-s", "2", *options),
    ]


def run(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s)


def test_it_measures_what_a_worker_does_and_writes_it_down(
    worker: ScriptedWorker, tmp_path: Path
) -> None:
    worker.script(delay_ms=round(DELAY_S * 1000))
    output = tmp_path / "capacity.yaml"
    options = ["--device", "test", "--start-s", "7", "--dollars-per-hour", "1.5"]
    done = run(*command(worker.address, output, *options, "--within-s", "25", "--from-rate", "5"))
    assert done.returncode == 0, done.stdout + done.stderr
    [entry] = read_capacity(output).workers
    assert (entry.task, entry.device, entry.start_s, entry.dollars_per_hour) == (
        *(TASK, "test"),
        *(7, 1.5),
    )
    assert (entry.engine, entry.model, entry.model_version) == ("scripted", "scripted", "1")
    assert entry.reviews_per_s > 0
    # Every batch takes as long: no answer is faster.
    assert DELAY_S <= entry.p50_s <= entry.p95_s <= OBJECTIVE_S
    assert "capacity worker --task" in entry.command
    assert "reviews/s holds" in done.stderr


def test_ctrl_c_ends_it_in_order_and_writes_nothing(worker: ScriptedWorker, tmp_path: Path) -> None:
    worker.script(delay_ms=10)
    output = tmp_path / "capacity.yaml"
    # Who runs the tests in the background has Ctrl-C ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from reviewmesh.cli.__main__ import main; main()"
    )
    words = command(worker.address, output, "--from-rate", "1")[3:]
    running = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert running.stderr is not None
    assert "holds" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    began = time.monotonic()
    told = running.stderr.read()
    assert running.wait(60) == 130
    assert "interrupted: 1.0 reviews/s held; nothing was written" in told
    assert "Traceback" not in told
    assert time.monotonic() - began < 60
    assert not output.exists()


def test_a_worker_that_fails_reviews_is_no_measurement(
    worker: ScriptedWorker, tmp_path: Path
) -> None:
    worker.script(failing=True)
    done = run(*command(worker.address, tmp_path / "capacity.yaml", "--within-s", "10"))
    assert done.returncode == 3, done.stderr
    assert "the worker failed one review alone: UNAVAILABLE: as scripted" in done.stderr
    worker.script()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1,127.0.0.1:2", "expected one worker as host:port"),
        ("nowhere", "expected one worker as host:port"),
    ],
)
def test_it_wants_one_worker(tmp_path: Path, address: str, expected: str) -> None:
    done = run(*command(address, tmp_path / "capacity.yaml"))
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.replace("│", " ").split())


def test_no_worker_is_told_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    program = (
        "from reviewmesh.capacity import measuring; measuring.IDLE_WITHIN_S = 3.0\n"
        "from reviewmesh.cli.__main__ import main; main()"
    )
    words = command(f"127.0.0.1:{port}", tmp_path / "capacity.yaml")[3:]
    done = run(sys.executable, "-c", program, *words)
    assert done.returncode == 3
    assert f"no worker for task {TASK} reachable at 127.0.0.1:{port}" in done.stderr


def test_the_arrivals_of_a_mesh_are_replayed(stack: TestStack, prefix: str, tmp_path: Path) -> None:
    mesh = Mesh(stack, prefix, tmp_path)
    mesh.apply_topics()
    for number in range(40):
        mesh.publish_raw(b"as accepted", partition=number % PARTITIONS, topic=ACCEPTED)
    capacity = tmp_path / "capacity.yaml"
    capacity.write_text(
        "workers:\n"
        "- {task: ner, device: a, objective_s: 1, reviews_per_s: 50, p50_s: 0, p95_s: 0}\n"
    )
    words = ["replay", "--from-topic", "--step-s", "3600", "--capacity", str(capacity)]
    done = subprocess.run(
        [sys.executable, "-m", "reviewmesh.cli", "capacity", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "REVIEWMESH_REGISTRY__URL": stack.registry_url,
            "REVIEWMESH_PREFIX": prefix,
        },
    )
    assert done.returncode == 0, done.stderr
    assert "40 accepted reviews in 1 steps" in done.stderr
    assert done.stdout.split("reviews")[1].split()[0] == "40"
