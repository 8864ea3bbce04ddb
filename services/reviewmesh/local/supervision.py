"""Runs the processes of one embedded mesh under supervisord.

supervisord starts them, restarts crashed ones (at once, then with growing pauses when they keep
crashing), rotates their logs and stops them in order. This module writes its configuration,
starts it, and talks to it over its unix socket.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, cast

from reviewmesh.local.errors import LocalStackError
from reviewmesh.local.paths import PRIVATE, StackPaths, make_private

SUPERVISORD = (sys.executable, "-m", "supervisor.supervisord", "--silent")
RPC_TIMEOUT_S = 60.0
# A unix socket's path has room for about 107 characters, and supervisord binds a longer name first.
LONGEST_SOCKET_PATH = 85
# A process that lives shorter than this counts as failing to start: its n-th restart waits n
# seconds. One that lives longer is restarted at once.
START_SECONDS = 15
# Never given up: after an hour of failed starts the pauses are a minute and a half, after a day
# seven.
START_RETRIES = 1_000_000
LOG_BYTES = "20MB"
LOG_BACKUPS = 2
OF_ANOTHER_MESH = (
    "REVIEWMESH_KAFKA__SASL",
    "REVIEWMESH_KAFKA__SECURITY",
    "REVIEWMESH_KAFKA__SSL",
    "REVIEWMESH_REGISTRY__",
    "REVIEWMESH_TLS__",
    "REVIEWMESH_WORKER__ALLOWED_CLIENTS",
    "REVIEWMESH_WORKERS__",
    "REVIEWMESH_SLOT",
)
SPAWNED = re.compile(r"spawned: '([^']+)' with pid")


@dataclass(frozen=True)
class Program:
    """One supervised process."""

    name: str
    group: str
    """Groups are stopped one after the other, the processes of a group together."""
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_wait_s: int = 20
    """How long it may take to stop on SIGTERM before it is killed."""
    port: int | None = None
    """The port that `ps` shows."""


@dataclass(frozen=True)
class ProcessStatus:
    """What `ps` shows of one process."""

    name: str
    state: str
    """supervisord's word: STARTING, RUNNING, BACKOFF, STOPPED, EXITED, FATAL."""
    pid: int | None
    restarts: int
    uptime_s: float
    port: int | None
    log: Path


def _plain(value: str) -> str:
    """A value in supervisord's configuration, which has no reliable escapes."""
    if re.search(r'["%\n]| ;', value):
        raise LocalStackError(
            "supervisord cannot be given a path or value with a double quote, a percent sign, a "
            f"line break or ' ;' in it: {value!r}; choose another REVIEWMESH_STATE_DIR (or "
            "REVIEWMESH_CACHE_DIR)"
        )
    return value


def _quoted(value: str) -> str:
    return f'"{_plain(value)}"'


def _program_section(program: Program, log: Path) -> str:
    command = " ".join(_quoted(part) for part in program.command)
    environment = ",".join(f"{k}={_quoted(v)}" for k, v in program.environment.items())
    return f"""
[program:{program.name}]
command={command}
environment={environment}
autorestart=true
startsecs={START_SECONDS}
startretries={START_RETRIES}
stopsignal=TERM
umask=077
stopwaitsecs={program.stop_wait_s}
killasgroup=true
redirect_stderr=true
stdout_logfile={_plain(str(log))}
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
"""


def configuration(paths: StackPaths, socket_file: Path, programs: Sequence[Program]) -> str:
    """supervisord's configuration file. The first group is stopped last."""
    groups: dict[str, list[str]] = {}
    for program in programs:
        groups.setdefault(program.group, []).append(program.name)
    text = f"""[supervisord]
nodaemon=true
logfile={_plain(str(paths.supervisor_log))}
logfile_maxbytes=10MB
logfile_backups=1
umask=077
pidfile={_plain(str(paths.state_dir / "supervisord.pid"))}
minfds=1024

[unix_http_server]
file={_plain(str(socket_file))}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
    for priority, (group, names) in enumerate(groups.items(), start=1):
        text += f"\n[group:{group}]\nprograms={','.join(names)}\npriority={priority}\n"
    return text + "".join(_program_section(p, paths.log_of(p.name)) for p in programs)


def socket_path(paths: StackPaths) -> Path:
    """Where supervisord listens: in the state folder, or in a short private one."""
    inside = paths.state_dir / "supervisor.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    return Path(tempfile.mkdtemp(prefix="reviewmesh-", dir=_short_temp_dir())) / "supervisor.sock"


def _short_temp_dir() -> str | None:
    chosen = tempfile.gettempdir()
    return chosen if len(os.fsencode(chosen)) < LONGEST_SOCKET_PATH - 40 else "/tmp"


def remove_socket(paths: StackPaths, socket_file: Path) -> None:
    """Remove the socket, with the folder that was made for it."""
    socket_file.unlink(missing_ok=True)
    if socket_file.parent != paths.state_dir and socket_file.parent.name.startswith("reviewmesh-"):
        shutil.rmtree(socket_file.parent, ignore_errors=True)


def start(paths: StackPaths, marker: Mapping[str, str]) -> int:
    """Start supervisord apart from this terminal and give its process id."""
    make_private(paths.logs)
    # Restarts are counted from this log, so each supervisord starts with an empty one.
    for old in paths.logs.glob("supervisord.log*"):
        old.unlink()
    with (paths.logs / "supervisord.err").open("wb") as errors:
        process = subprocess.Popen(
            [*SUPERVISORD, "-c", str(paths.supervisor_config)],
            env={**_inherited_environment(), **marker},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            umask=0o777 - PRIVATE,
        )
    return process.pid


def _inherited_environment() -> dict[str, str]:
    """The current environment without the settings and credentials of another mesh."""
    return {k: v for k, v in os.environ.items() if not k.upper().startswith(OF_ANOTHER_MESH)}


def unused_settings() -> list[str]:
    """The names of settings in the environment that the embedded mesh has its own values for."""
    return sorted(name for name in os.environ if name.upper().startswith(OF_ANOTHER_MESH))


class _UnixConnection(HTTPConnection):
    def __init__(self, socket_file: Path) -> None:
        super().__init__("localhost", timeout=RPC_TIMEOUT_S)
        self._socket_file = socket_file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(RPC_TIMEOUT_S)
        self.sock.connect(str(self._socket_file))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, socket_file: Path) -> None:
        super().__init__()
        self._socket_file = socket_file

    def make_connection(self, host: object) -> HTTPConnection:
        return _UnixConnection(self._socket_file)


class SupervisorClient:
    """Talks to the supervisord of one mesh."""

    def __init__(self, paths: StackPaths, socket_file: Path) -> None:
        self._paths = paths
        transport = _UnixTransport(socket_file)
        self._rpc: Any = xmlrpc.client.ServerProxy("http://localhost", transport=transport)

    def answers(self) -> bool:
        """Whether supervisord is up and takes requests."""
        try:
            return bool(self._rpc.supervisor.getState()["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error):
            return False

    def processes(self, ports: Mapping[str, int]) -> list[ProcessStatus]:
        """The state of every process, in the order of the configuration."""
        restarts = count_spawns(self._paths)
        answer = cast("list[dict[str, Any]]", self._rpc.supervisor.getAllProcessInfo())
        return [self._status(info, restarts, ports) for info in answer]

    def stop(self, name: str) -> None:
        """Stop a process and keep it stopped."""
        self._call("stopProcess", name)

    def start(self, name: str) -> None:
        """Start a stopped process."""
        self._call("startProcess", name)

    def shut_down(self) -> bool:
        """Request an orderly shutdown of supervisord; returns whether it accepted."""
        try:
            self._rpc.supervisor.shutdown()
        except (OSError, HTTPException, xmlrpc.client.Error):
            return False
        return True

    def _call(self, method: str, name: str) -> None:
        # `wait=False`: the caller waits for what it needs, which is never supervisord's own state.
        for info in cast("list[dict[str, Any]]", self._rpc.supervisor.getAllProcessInfo()):
            if info["name"] == name:
                try:
                    getattr(self._rpc.supervisor, method)(f"{info['group']}:{name}", False)
                except xmlrpc.client.Fault as fault:
                    raise LocalStackError(f"{method} {name}: {fault.faultString}") from fault
                return
        raise LocalStackError(f"the mesh in {self._paths.state_dir} has no process {name!r}")

    def _status(
        self, info: Mapping[str, Any], spawns: Mapping[str, int], ports: Mapping[str, int]
    ) -> ProcessStatus:
        name = str(info["name"])
        alive = bool(info["pid"])
        return ProcessStatus(
            name=name,
            state=str(info["statename"]),
            pid=int(info["pid"]) or None,
            restarts=max(0, spawns.get(name, 0) - 1),
            uptime_s=max(0.0, time.time() - float(info["start"])) if alive else 0.0,
            port=ports.get(name),
            log=self._paths.log_of(name),
        )


def count_spawns(paths: StackPaths) -> dict[str, int]:
    """How often each process was started; supervisord says so only in its log."""
    counts: dict[str, int] = {}
    for log in paths.logs.glob("supervisord.log*"):
        for name in SPAWNED.findall(log.read_text(encoding="utf-8", errors="replace")):
            counts[name] = counts.get(name, 0) + 1
    return counts


def log_tail(log: Path, lines: int = 12) -> str:
    """The end of a process's log, for an error message."""
    if not log.exists():
        return "(it has not written a log)"
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - 16_384))
        text = handle.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"
