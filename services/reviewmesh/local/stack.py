"""Starts and stops one embedded mesh: what `reviewmesh up`, `down` and `ps`, and the tests use."""

from __future__ import annotations

import fcntl
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from confluent_kafka import KafkaException

from reviewmesh.avro import topics
from reviewmesh.avro.acls import grants
from reviewmesh.avro.granting import AclsRefused, ClusterAcls
from reviewmesh.avro.registry import RegistryUnavailable, registry_of
from reviewmesh.local import (
    artifacts,
    broker,
    monitoring,
    probes,
    programs,
    registry,
    state,
    supervision,
)
from reviewmesh.local.errors import AlreadyRunningError, LocalStackError
from reviewmesh.local.paths import PRIVATE, StackPaths, cache_dir, make_private, private_files
from reviewmesh.local.ports import HOST, choose_ports, is_free, taken_by
from reviewmesh.local.probes import Health, HealthCheck
from reviewmesh.local.processes import end_marked, has_ended, marked_processes, marker_environment
from reviewmesh.local.secure import ADMIN, Identities
from reviewmesh.local.state import StackInfo
from reviewmesh.local.supervision import ProcessStatus, SupervisorClient, log_tail
from reviewmesh.settings import Settings

SUPERVISOR_DEADLINE_S = 60.0
READY_DEADLINE_S = 300.0
STOP_DEADLINE_S = 90.0
REGISTRY_TIMEOUT_S = 90.0
# Services wait for their dependencies, so one that keeps crashing will not get ready.
CRASHES_AT_START = 3
POLL_S = 0.1
# Polling takes CPU time from the start.
READY_POLL_S = 0.25
PORT_CLOSE_DEADLINE_S = 5.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

ReadyCallback = Callable[[str, float], None]
"""Called with a process's name and the seconds it took since the start, once it is ready."""


class EmbeddedStack:
    """One embedded mesh, by its state folder."""

    def __init__(self, state_dir: Path) -> None:
        self.paths = StackPaths.at(state_dir)

    def up(
        self,
        mesh: bool = True,
        progress: artifacts.ProgressCallback | None = None,
        on_ready: ReadyCallback | None = None,
        deadline_s: float = READY_DEADLINE_S,
        brokers: int | None = None,
        secure: bool | None = None,
        scale: Mapping[str, int] = MappingProxyType({}),
    ) -> StackInfo:
        """Start everything and return when all of it is ready.

        With `mesh=False` there are brokers and a registry, and no service. With `secure` everybody
        has to show who they are. `scale`: how many replicas of a service, or workers. What is not
        said is as before; in a new folder there is one of each, and nobody has to show. When
        something does not become ready, everything is stopped again and the error shows the end of
        its log.
        """
        with self._usable_folders():
            # The permissions of an existing folder are left to its owner.
            self.paths.state_dir.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            with self._exclusive():
                earlier = state.read(self.paths)
                self._refuse_second(earlier)
                if earlier is not None:
                    end_marked(earlier.stack_id)
                    _require_ports(earlier, self.paths)
                number = self._number_of_brokers(brokers)
                if secure is None:
                    secure = earlier is not None and earlier.is_secure
                files = artifacts.ensure(progress)
                with private_files():
                    before = programs.scale_of(earlier.ports) if earlier else {}
                    wanted = {**before, **scale}
                    info = self._launch(files, earlier, mesh, number, secure, wanted)
                    return self._started(info, on_ready, deadline_s)

    def down(self, purge: bool = False) -> bool:
        """Stop everything, with `purge` remove the data; returns whether anything was running."""
        if not self.paths.state_dir.exists():
            return False
        with self._usable_folders(), self._exclusive(), private_files():
            info = state.read(self.paths)
            was_running = info is not None and self._stop(info)
            if purge:
                self._purge()
        return was_running

    def ps(self) -> list[ProcessStatus]:
        """Every process of the mesh; empty when it is stopped."""
        info = state.read(self.paths)
        if info is None:
            return []
        if info.is_running() and self._client(info).answers():
            return self._client(info).processes(info.ports)
        return self._orphans(info)

    def health(self) -> dict[str, Health]:
        """The health of each process, checked in parallel."""
        info = self.info()
        if info is None:
            return {}
        asked = probes.checks(info)
        with ThreadPoolExecutor(len(asked)) as pool:
            return dict(zip(asked, pool.map(lambda ask: ask(), asked.values()), strict=True))

    def info(self) -> StackInfo | None:
        """The running mesh; None when it does not run."""
        return state.find_running(self.paths.state_dir)

    def stop_process(self, name: str) -> None:
        """Stop one process and keep it stopped."""
        self._running_client().stop(name)

    def start_process(self, name: str) -> None:
        """Start one process that was stopped."""
        self._running_client().start(name)

    def status_of(self, name: str) -> ProcessStatus:
        """The state of one process."""
        for status in self.ps():
            if status.name == name:
                return status
        raise LocalStackError(f"the mesh in {self.paths.state_dir} has no process {name!r}")

    @contextmanager
    def _usable_folders(self) -> Iterator[None]:
        """What the file system refuses, with where to look."""
        try:
            yield
        # Those are of sockets, and have names of their own.
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            at = f" ({error.filename})" if error.filename else ""
            raise LocalStackError(
                f"{error.strerror or error}{at}; this user must be able to write, and have room, "
                f"in the state folder {self.paths.state_dir} (REVIEWMESH_STATE_DIR) and the cache "
                f"folder {cache_dir()} (REVIEWMESH_CACHE_DIR)"
            ) from error

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with private_files():
            lock = self.paths.lock_file.open("w")
        with lock as handle:
            try:
                fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(
                    f"another `reviewmesh up` or `down` is at work on {self.paths.state_dir}; "
                    "wait for it, or use another folder with REVIEWMESH_STATE_DIR"
                ) from None
            yield

    def _refuse_second(self, earlier: StackInfo | None) -> None:
        if earlier is not None and earlier.is_running():
            raise AlreadyRunningError(
                f"a mesh already runs from {self.paths.state_dir} (supervisor pid "
                f"{earlier.supervisor_pid}, broker {earlier.bootstrap_servers}): see it with "
                "`reviewmesh ps`, stop it with `reviewmesh down`, or start another one with a "
                "REVIEWMESH_STATE_DIR of its own"
            )

    def _number_of_brokers(self, wanted: int | None) -> int:
        """As many as the data is of. Raises LocalStackError when another number is wanted."""
        folders = [self.paths.folder_of(name) for name in broker.names(broker.NUMBERS[-1])]
        kept = broker.number_kept(folders)
        if wanted is not None and kept is not None and wanted != kept:
            raise LocalStackError(
                f"the data in {self.paths.state_dir} is of a mesh with {kept} broker"
                f"{'s' if kept > 1 else ''}, not {wanted}: remove it with `reviewmesh down "
                "--purge`, or use another folder with REVIEWMESH_STATE_DIR"
            )
        return kept or wanted or 1

    def _started(
        self, info: StackInfo, on_ready: ReadyCallback | None, deadline_s: float
    ) -> StackInfo:
        try:
            self._wait_all_ready(info, on_ready, deadline_s)
        # Also on Ctrl-C: an interrupted start leaves nothing running.
        except BaseException:
            self._stop(info)
            raise
        return info

    def _launch(
        self,
        files: artifacts.Artifacts,
        earlier: StackInfo | None,
        mesh: bool,
        brokers: int,
        secure: bool,
        scale: Mapping[str, int],
    ) -> StackInfo:
        stack_id = uuid.uuid4().hex
        insights = programs.insights_python() if mesh else None
        names = programs.port_names(mesh, insights is not None, brokers, scale)
        before = earlier.ports if earlier else {}
        ports = choose_ports(names, before, str(self.paths.state_dir))
        identities = self._identities(ports) if secure else None
        own = None if identities is None else identities.broker_properties()
        broker.prepare(programs.broker_nodes(self.paths, ports), own)
        make_private(self.paths.registry_dir)
        socket_file = supervision.socket_path(self.paths)
        wanted = programs.backing_programs(self.paths, files, ports, identities)
        if mesh:
            secret = state.forwarding_secret(self.paths)
            wanted += programs.mesh_programs(self.paths, ports, secret, insights, identities)
        text = supervision.configuration(self.paths, socket_file, wanted)
        self.paths.supervisor_config.write_text(text, encoding="utf-8")
        info = StackInfo(
            stack_id=stack_id,
            mesh=mesh,
            ports=ports,
            supervisor_pid=None,
            supervisor_socket=str(socket_file),
            secure_dir=None if identities is None else str(identities.folder),
        )
        # Written first, so that processes of a start that is killed are found and ended.
        state.write(self.paths, info)
        pid = supervision.start(self.paths, marker_environment(stack_id))
        info = replace(info, supervisor_pid=pid)
        state.write(self.paths, info)
        return info

    def _identities(self, ports: Mapping[str, int]) -> Identities:
        identities = Identities(self.paths.secure_dir)
        identities.prepare()
        identities.write_registry_properties(ports["registry"])
        return identities

    def _client(self, info: StackInfo) -> SupervisorClient:
        return SupervisorClient(self.paths, Path(info.supervisor_socket))

    def _running_client(self) -> SupervisorClient:
        info = self.info()
        if info is None:
            raise LocalStackError(
                f"no mesh runs from {self.paths.state_dir}; start it with `reviewmesh up`"
            )
        return self._client(info)

    def _wait_all_ready(
        self, info: StackInfo, on_ready: ReadyCallback | None, deadline_s: float
    ) -> None:
        started = time.monotonic()
        self._wait_for_supervisor(info)

        def wait(checks: Mapping[str, HealthCheck]) -> None:
            for name in self._as_they_get_ready(info, checks, started + deadline_s):
                if on_ready is not None:
                    on_ready(name, time.monotonic() - started)

        asked = probes.checks(info)
        wait({name: asked.pop(name) for name in programs.backing_of(info.ports)})
        registry.note_ready(self.paths.registry_dir)
        if info.mesh:
            _apply_topics(info)
        wait(asked)

    def _wait_for_supervisor(self, info: StackInfo) -> None:
        deadline = time.monotonic() + SUPERVISOR_DEADLINE_S
        pid = info.supervisor_pid
        while not self._client(info).answers():
            if time.monotonic() > deadline or pid is None or has_ended(pid):
                raise LocalStackError(
                    "supervisord did not start:\n"
                    + log_tail(self.paths.logs / "supervisord.err")
                    + "\n"
                    + log_tail(self.paths.supervisor_log)
                )
            time.sleep(POLL_S)

    def _as_they_get_ready(
        self, info: StackInfo, checks: Mapping[str, HealthCheck], deadline: float
    ) -> Iterator[str]:
        """Yield each name once it is ready; raise when one will never be."""
        pending = dict(checks)
        while pending:
            for name in [name for name, check in pending.items() if check().ready]:
                del pending[name]
                yield name
            if pending:
                self._raise_if_hopeless(info, pending.keys(), late=time.monotonic() > deadline)
                time.sleep(READY_POLL_S)

    def _raise_if_hopeless(self, info: StackInfo, names: Collection[str], late: bool) -> None:
        """Raise when one of these will never be ready, or after the deadline."""
        reasons = dict.fromkeys(names, "not ready in time") if late else {}
        reasons |= self._hopeless(info, names)
        if not reasons:
            return
        ends = [
            f"the end of {self.paths.log_of(name)}:\n{log_tail(self.paths.log_of(name))}"
            for name in reasons
        ]
        words = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
        raise LocalStackError(
            "\n".join([f"did not become ready: {words}; everything is stopped again", *ends])
        )

    def _hopeless(self, info: StackInfo, names: Collection[str]) -> dict[str, str]:
        if not info.is_running():
            return dict.fromkeys(names, "its supervisor ended")
        found = [p for p in self._client(info).processes(info.ports) if p.name in names]
        return {
            process.name: f"{process.state}, crashed {process.restarts} times"
            for process in found
            if process.state == "FATAL" or process.restarts >= CRASHES_AT_START
        }

    def _stop(self, info: StackInfo) -> bool:
        """Stop through supervisord, then end all remaining processes of the mesh."""
        with _undisturbed():
            was_running = info.is_running()
            if was_running and self._client(info).shut_down():
                deadline = time.monotonic() + STOP_DEADLINE_S
                while info.is_running() and time.monotonic() < deadline:
                    time.sleep(POLL_S)
            left = end_marked(info.stack_id)
            supervision.remove_socket(self.paths, Path(info.supervisor_socket))
            _wait_ports_closed(info.ports)
            # On a full disk the file stays as it was, with a supervisor that has ended.
            with suppress(OSError):
                state.write(self.paths, info.stopped())
        return was_running or left > 0

    def _orphans(self, info: StackInfo) -> list[ProcessStatus]:
        """Processes that a killed supervisor left running."""
        return [
            ProcessStatus(
                name=_program_name(process.cmdline()),
                state="UNSUPERVISED",
                pid=process.pid,
                restarts=0,
                uptime_s=time.time() - process.create_time(),
                port=None,
                log=self.paths.logs,
            )
            for process in marked_processes(info.stack_id)
        ]

    def _purge(self) -> None:
        """Remove the files of `up`, and the folder itself when it is empty then."""
        paths = self.paths
        brokers = [paths.folder_of(name) for name in broker.names(broker.NUMBERS[-1])]
        for folder in (
            *brokers,
            paths.registry_dir,
            paths.secure_dir,
            paths.console_dir,
            paths.logs,
        ):
            shutil.rmtree(folder, ignore_errors=True)
        monitoring.remove(paths)
        pid_file = paths.state_dir / "supervisord.pid"
        # Left by writes that failed on a full disk.
        half_written = paths.state_dir.glob("stack.*.new")
        named = (
            paths.stack_file,
            paths.supervisor_config,
            paths.forwarding_secret,
            pid_file,
            paths.lock_file,
        )
        for file in (*named, *half_written):
            file.unlink(missing_ok=True)
        if not any(paths.state_dir.iterdir()):
            paths.state_dir.rmdir()


def _require_ports(earlier: StackInfo, paths: StackPaths) -> None:
    """Raise when a port that clients use is taken by another program."""
    # Clients have been configured with these.
    kept = {name: earlier.ports[name] for name in programs.backing_of(earlier.ports)}
    _wait_ports_closed(kept)
    for name, port in kept.items():
        if not is_free(port):
            by = taken_by(port)
            raise LocalStackError(
                f"the {name} of this mesh was reached on port {port} of {HOST}, which is now taken"
                f"{' by ' + by if by else ''}: end what listens there and start again. To move "
                f"the mesh to other ports, its data kept, remove {paths.stack_file} and tell its "
                "clients the new addresses"
            )


def _apply_topics(info: StackInfo) -> None:
    """And in a secure mesh, say who may use them."""
    settings = Settings()
    registry_client = registry_of(info.registry(), timeout_s=REGISTRY_TIMEOUT_S)
    windows = (
        settings.join.max_wait_s,
        settings.join.late_window_s,
        settings.intake.dedupe_window_s,
    )
    # Nobody else may do anything yet.
    kafka = info.kafka(ADMIN)
    try:
        topics.apply(kafka, registry_client, settings.prefix, max(windows))
        if info.is_secure:
            ClusterAcls(kafka).add(grants(settings.prefix, watched=settings.lag.groups))
    except (topics.TopicsError, RegistryUnavailable, AclsRefused, KafkaException) as error:
        raise LocalStackError(
            f"the topics could not be applied, everything is stopped again: {error}"
        ) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore a second Ctrl-C, which would leave some processes running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_ports_closed(ports: Mapping[str, int]) -> None:
    deadline = time.monotonic() + PORT_CLOSE_DEADLINE_S
    while time.monotonic() < deadline and not all(map(is_free, ports.values())):
        time.sleep(POLL_S)


def _program_name(command_line: list[str]) -> str:
    words = [word for word in command_line if not word.startswith("-")]
    return " ".join(word.rsplit("/", 1)[-1] for word in words[:3]) or "(unknown)"
