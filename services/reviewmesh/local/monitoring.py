"""Prometheus and Alertmanager over an embedded mesh: found on PATH, configured, run and ended.

They have a lock and a marker of their own: the mesh may stop, start and change beneath them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reviewmesh.local.errors import AlreadyRunningError, LocalStackError
from reviewmesh.local.paths import StackPaths, make_private, private_files, write_in_one_step
from reviewmesh.local.ports import HOST, choose_ports
from reviewmesh.local.processes import end_marked, marker_environment
from reviewmesh.local.programs import backing_of, service_of
from reviewmesh.local.supervision import log_tail

OBSERVABILITY = Path(__file__).parents[3] / "observability"
READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 15.0
CHECK_EVERY_S = 0.1
ANSWER_TIMEOUT_S = 2.0
# As in docker-compose.yml.
RETENTION = ("--storage.tsdb.retention.time=15d", "--storage.tsdb.retention.size=2GB")
PROMETHEUS, ALERTMANAGER = "prometheus", "alertmanager"
BINARIES = {PROMETHEUS: ("prometheus",), ALERTMANAGER: ("alertmanager", "prometheus-alertmanager")}
"""What each is called: as its makers have it, and as Debian does."""
PACKAGES = {PROMETHEUS: "prometheus", ALERTMANAGER: "prometheus-alertmanager"}
SERVICE_JOB = ("intake", "enricher-", "joiner")


def targets_of(ports: Mapping[str, int]) -> list[dict[str, Any]]:
    """One for each process that has /metrics; brokers and registry have none."""
    others = backing_of(ports)
    return [
        {
            "targets": [f"{HOST}:{port}"],
            "labels": {
                "job": "service" if name.startswith(SERVICE_JOB) else service,
                "component": service,
            },
        }
        for name, port in ports.items()
        if name not in others and "." not in name
        for service in [service_of(name)[0]]
    ]


@dataclass(frozen=True)
class MonitoringFiles:
    """Those of the two servers, in one folder of the state folder."""

    folder: Path

    @property
    def prometheus_config(self) -> Path:
        return self.folder / "prometheus.yml"

    @property
    def targets(self) -> Path:
        """What Prometheus reads again whenever it changes."""
        return self.folder / "targets.json"

    @property
    def alertmanager_config(self) -> Path:
        """Written where there is none: whoever wants to be told of alerts edits it."""
        return self.folder / "alertmanager.yml"

    def data_of(self, server: str) -> Path:
        return self.folder / server

    def write(self, ports: Mapping[str, int], mesh: Mapping[str, int]) -> None:
        """`ports`: of the servers; `mesh`: of the processes that are scraped."""
        rules = sorted((OBSERVABILITY / "rules").glob("*.yml"))
        if not rules:
            raise LocalStackError(
                f"expected the rules in {OBSERVABILITY / 'rules'}, found none; they come with the "
                "source of reviewmesh and with no wheel: run this command from a clone of it"
            )
        published = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text("utf-8"))
        config = {
            "global": published["global"],
            "rule_files": [str(file) for file in rules],
            "alerting": {
                "alertmanagers": [
                    {"static_configs": [{"targets": [f"{HOST}:{ports[ALERTMANAGER]}"]}]}
                ]
            },
            # The label `job` of each target goes before this name.
            "scrape_configs": [
                {
                    "job_name": "mesh",
                    "file_sd_configs": [{"files": [str(self.targets)], "refresh_interval": "5s"}],
                }
            ],
        }
        self.write_targets(mesh)
        write_in_one_step(self.prometheus_config, yaml.safe_dump(config).encode())
        if not self.alertmanager_config.exists():
            silent = {"route": {"receiver": "page"}, "receivers": [{"name": "page"}]}
            write_in_one_step(self.alertmanager_config, yaml.safe_dump(silent).encode())

    def write_targets(self, mesh: Mapping[str, int]) -> None:
        """Where they changed."""
        content = json.dumps(targets_of(mesh), indent=2).encode()
        if not self.targets.exists() or self.targets.read_bytes() != content:
            write_in_one_step(self.targets, content)


class Monitoring:
    """Both servers, running."""

    def __init__(self, paths: StackPaths, ports: Mapping[str, int]) -> None:
        self._paths = paths
        self._files = MonitoringFiles(paths.monitoring_dir)
        self._ports = ports
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, server: str) -> str:
        return f"http://{HOST}:{self._ports[server]}"

    def start(self, mesh: Mapping[str, int]) -> None:
        """Returns when both are ready. Raises LocalStackError."""
        programs = found_programs()
        with private_files():
            self._paths.logs.mkdir(parents=True, exist_ok=True)
            self._files.write(self._ports, mesh)
            for server, arguments in self._arguments().items():
                with self._paths.log_of(server).open("wb") as log:
                    self._running[server] = subprocess.Popen(
                        [programs[server], *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=os.environ | marker_environment(_marker(self._paths)),
                        # Ctrl-C is for this command, which ends them in order.
                        start_new_session=True,
                    )
        deadline = time.monotonic() + READY_WITHIN_S
        while waiting := [server for server in self._running if not self._is_ready(server)]:
            self.check()
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"{waiting[0]} is not ready after {READY_WITHIN_S:g} s; the end of "
                    f"{self._paths.log_of(waiting[0])}:\n{log_tail(self._paths.log_of(waiting[0]))}"
                )
            time.sleep(CHECK_EVERY_S)

    def follow(self, mesh: Mapping[str, int]) -> None:
        """Have what the mesh consists of now scraped; it may have been started again."""
        self._files.write_targets(mesh)

    def check(self) -> None:
        """Raises LocalStackError when one of them has ended."""
        for server, process in self._running.items():
            if process.poll() is not None:
                log = self._paths.log_of(server)
                raise LocalStackError(
                    f"{server} ended with exit code {process.returncode}; the end of {log}:\n"
                    f"{log_tail(log)}"
                )

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _arguments(self) -> dict[str, list[str]]:
        def common(server: str) -> list[str]:
            address = f"{HOST}:{self._ports[server]}"
            # Without the second, links in alerts name the host.
            return [f"--web.listen-address={address}", f"--web.external-url=http://{address}"]

        return {
            ALERTMANAGER: [
                *common(ALERTMANAGER),
                f"--config.file={self._files.alertmanager_config}",
                f"--storage.path={self._files.data_of(ALERTMANAGER)}",
                # It has no others to agree with.
                "--cluster.listen-address=",
            ],
            PROMETHEUS: [
                *common(PROMETHEUS),
                f"--config.file={self._files.prometheus_config}",
                f"--storage.tsdb.path={self._files.data_of(PROMETHEUS)}",
                *RETENTION,
            ],
        }

    def _is_ready(self, server: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url(server)}/-/ready", timeout=ANSWER_TIMEOUT_S):
                return True
        except OSError:
            return False


def found_programs() -> dict[str, str]:
    """Where each server is. Raises LocalStackError."""
    found = {
        server: next(filter(None, map(shutil.which, names)), None)
        for server, names in BINARIES.items()
    }
    if missing := [server for server, path in found.items() if path is None]:
        packages = " ".join(PACKAGES[server] for server in missing)
        raise LocalStackError(
            f"expected prometheus and alertmanager on PATH, found no {' and no '.join(missing)}; "
            f"on Debian and Ubuntu: apt-get install {packages}; elsewhere: "
            "https://prometheus.io/download"
        )
    return {server: path for server, path in found.items() if path is not None}


@contextmanager
def monitoring(paths: StackPaths, mesh: Mapping[str, int]) -> Iterator[Monitoring]:
    """Both servers over the mesh with these ports, ready. Raises LocalStackError."""
    with held(paths):
        # Of a command that was killed.
        end_marked(_marker(paths))
        ports = choose_ports((PROMETHEUS, ALERTMANAGER), {}, str(paths.monitoring_dir))
        servers = Monitoring(paths, ports)
        try:
            servers.start(mesh)
            yield servers
        finally:
            servers.stop()


@contextmanager
def held(paths: StackPaths) -> Iterator[None]:
    """The folder of the two servers, for one command at a time."""
    make_private(paths.monitoring_dir)
    with private_files(), (paths.monitoring_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"another `reviewmesh monitor` runs over the mesh in {paths.state_dir}"
            ) from None
        yield


def remove(paths: StackPaths) -> None:
    """What the servers keep, unless they run."""
    if paths.monitoring_dir.exists():
        with suppress(AlreadyRunningError), held(paths):
            shutil.rmtree(paths.monitoring_dir, ignore_errors=True)


def _marker(paths: StackPaths) -> str:
    return f"monitoring of {paths.state_dir}"
