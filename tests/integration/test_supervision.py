"""supervisord with small programs: crash loops, killed supervisors, long paths. No Java here."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from reviewmesh.local import state, supervision
from reviewmesh.local.errors import LocalStackError
from reviewmesh.local.processes import marker_environment
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.state import StackInfo
from reviewmesh.local.supervision import Program
from tests.broker import wait_until

SLEEPER = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(600)"]
CRASHER = [sys.executable, "-c", "raise SystemExit('no such luck')"]
# A process group of its own, as an engine that forks might make: its supervisor cannot reach it.
FORKER = [
    *(sys.executable, "-c"),
    "import subprocess, sys, time; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True); "
    "time.sleep(600)",
]

Launch = Callable[[Path, Sequence[Program]], EmbeddedStack]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start programs of the test's choice under supervisord; end them afterwards."""
    started: list[EmbeddedStack] = []

    def start(state_dir: Path, programs: Sequence[Program]) -> EmbeddedStack:
        stack = EmbeddedStack(state_dir)
        state_dir.mkdir(parents=True)
        socket_file = supervision.socket_path(stack.paths)
        text = supervision.configuration(stack.paths, socket_file, programs)
        stack.paths.supervisor_config.write_text(text, encoding="utf-8")
        stack_id = uuid.uuid4().hex
        started.append(stack)
        pid = supervision.start(stack.paths, marker_environment(stack_id))
        state.write(stack.paths, StackInfo(stack_id, False, {}, pid, str(socket_file)))
        names = [program.name for program in programs]
        wait_until(lambda: [p.name for p in stack.ps()] == names, 10, "supervisord answers")
        return stack

    yield start
    for stack in started:
        stack.down(purge=True)


def test_a_crash_loop_is_shown_with_its_restarts_and_its_last_words(
    launch: Launch, tmp_path: Path
) -> None:
    stack = launch(tmp_path / "state", [Program("crasher", "all", CRASHER)])

    wait_until(lambda: stack.status_of("crasher").restarts >= 2, 15, "two restarts")
    wait_until(lambda: stack.status_of("crasher").state == "BACKOFF", 10, "a pause between them")

    assert "no such luck" in supervision.log_tail(stack.status_of("crasher").log)


def test_a_killed_process_comes_back_under_a_new_id(launch: Launch, tmp_path: Path) -> None:
    stack = launch(tmp_path / "state", [Program("sleeper", "all", SLEEPER)])
    wait_until(lambda: stack.status_of("sleeper").pid is not None, 5, "started")
    first = stack.status_of("sleeper").pid
    assert first is not None

    os.kill(first, signal.SIGKILL)

    wait_until(lambda: stack.status_of("sleeper").pid not in (None, first), 10, "started again")
    assert stack.status_of("sleeper").restarts == 1


@pytest.mark.parametrize("code", [0, 1, 70])
def test_whatever_a_process_ends_with_it_is_started_again(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(supervision, "START_SECONDS", 1)
    ending = [sys.executable, "-c", f"import sys, time; time.sleep(2); sys.exit({code})"]
    stack = launch(tmp_path / "state", [Program("ending", "all", ending)])

    wait_until(lambda: stack.status_of("ending").restarts >= 2, 20, "two restarts")


def test_down_ends_what_a_killed_supervisor_left_behind(launch: Launch, tmp_path: Path) -> None:
    stack = launch(
        tmp_path / "state",
        [Program("sleeper", "one", SLEEPER), Program("forker", "two", FORKER)],
    )
    info = stack.info()
    assert info is not None and info.supervisor_pid is not None
    wait_until(lambda: len(_descendants(info.supervisor_pid)) == 3, 10, "the forker's child")
    left = _descendants(info.supervisor_pid)

    os.kill(info.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: not info.is_running(), 5, "the supervisor gone")
    assert {process.state for process in stack.ps()} == {"UNSUPERVISED"}
    assert stack.down()

    assert stack.ps() == []
    assert not any(process.is_running() for process in left)


def test_down_ends_a_process_that_its_program_detached(launch: Launch, tmp_path: Path) -> None:
    stack = launch(tmp_path / "state", [Program("forker", "all", FORKER)])
    info = stack.info()
    assert info is not None
    wait_until(lambda: len(_descendants(info.supervisor_pid)) == 2, 10, "the forker's child")
    started = _descendants(info.supervisor_pid)

    assert stack.down()

    assert not any(process.is_running() for process in started)


def test_a_state_folder_with_a_long_path_and_odd_characters_works(
    launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / ("deep" * 20) / "it's mine; really, ünï çôdé"

    stack = launch(folder, [Program("sleeper", "all", SLEEPER)])

    info = stack.info()
    assert info is not None
    assert len(info.supervisor_socket) < supervision.LONGEST_SOCKET_PATH + 10
    wait_until(lambda: "awake" in supervision.log_tail(stack.paths.log_of("sleeper")), 5, "a log")
    assert stack.down()
    assert not Path(info.supervisor_socket).exists()


def test_a_state_folder_that_supervisord_cannot_be_given_is_refused(
    launch: Launch, tmp_path: Path
) -> None:
    with pytest.raises(LocalStackError, match="choose another REVIEWMESH_STATE_DIR"):
        launch(tmp_path / "100% mine", [Program("sleeper", "all", SLEEPER)])


def test_an_unknown_process_is_named_in_the_error(launch: Launch, tmp_path: Path) -> None:
    stack = launch(tmp_path / "state", [Program("sleeper", "all", SLEEPER)])

    with pytest.raises(LocalStackError, match="no process 'sleepy'"):
        stack.stop_process("sleepy")


def _descendants(pid: int | None) -> list[psutil.Process]:
    assert pid is not None
    return psutil.Process(pid).children(recursive=True)
