"""`reviewmesh up`, `down` and `ps`: the embedded stack."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.local import programs
from reviewmesh.local.broker import NUMBERS
from reviewmesh.local.paths import default_state_dir
from reviewmesh.local.probes import Health
from reviewmesh.local.secure import CLIENTS, OPERATOR
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.state import StackInfo
from reviewmesh.local.supervision import ProcessStatus, log_tail, unused_settings
from reviewmesh_kit.exit_codes import FAILED

WATCH_INTERVAL_S = 1.0
# A service first finishes records in flight; its supervisor kills it after 30 s.
STOPPED_WITHIN_S = 60.0
STOP_CHECK_S = 0.1
# Smaller files come and go faster than a line can be read.
SHOWN_DOWNLOAD_BYTES = 5_000_000
HEALTHY = ("RUNNING", "STARTING")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(up)
    app.command()(down)
    app.command()(ps)
    app.command()(stop)
    app.command()(start)
    app.command()(env)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once the mesh is ready.")
    ] = False,
    brokers: Annotated[
        int | None,
        typer.Option(
            help="1, or 3 of which any one may fail; as many as before where nothing is said."
        ),
    ] = None,
    secure: Annotated[
        bool | None,
        typer.Option(
            "--secure/--no-secure",
            help="Everybody shows who they are, on every hop, and may do what they need; as before "
            "where nothing is said.",
        ),
    ] = None,
) -> None:
    """Run the whole mesh on this machine: brokers, registry, services and a worker."""
    if brokers not in (None, *NUMBERS):
        raise typer.BadParameter(f"--brokers: expected {' or '.join(map(str, NUMBERS))}")
    stack = EmbeddedStack(default_state_dir())
    with _stop_on_sigterm(), _interrupted_in_order():
        info = start_with_progress(stack, brokers, secure)
        for name in unused_settings():
            err.print(f"{name} is not used: this mesh has its own", style="yellow")
        err.print(f"broker   {info.bootstrap_servers}")
        err.print(f"registry {info.registry_url}")
        err.print(f"console  {info.console_url}")
        err.print(f"state    {stack.paths.state_dir}")
        if info.is_secure:
            err.print(
                'clients  eval "$(reviewmesh env producer)", or consumer: how they show who '
                "they are"
            )
        if not detach:
            _watch(stack)


def down(
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove the data of the broker and the registry.")
    ] = False,
) -> None:
    """Stop the mesh of this state folder; its data stays."""
    stack = EmbeddedStack(default_state_dir())
    had_data = stack.paths.state_dir.exists()
    with _interrupted_in_order():
        was_running = stack.down(purge)
    words = "stopped" if was_running else "nothing was running"
    if had_data:
        words += ", data removed" if purge else ", data kept"
    err.print(f"{words}: {stack.paths.state_dir}")


def ps(
    as_lines: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """Show the processes of the mesh; exit code 1 when one of them is not ready."""
    stack = EmbeddedStack(default_state_dir())
    processes, health = stack.ps(), stack.health()
    if not processes:
        err.print(f"no mesh runs from {stack.paths.state_dir}")
        raise typer.Exit(FAILED)
    if as_lines:
        print(json_text([_as_json(process, health) for process in processes]))
    else:
        out.print(_table(processes, health), soft_wrap=False)
        _print_dead(processes)
    if not all(_is_well(process, health) for process in processes):
        raise typer.Exit(FAILED)


def env(
    client: Annotated[str, typer.Argument(help=f"Who connects: {', '.join(CLIENTS)}.")] = OPERATOR,
) -> None:
    """Print the settings with which a client reaches the mesh of this state folder, for a shell."""
    if client not in CLIENTS:
        raise typer.BadParameter(f"expected one of {', '.join(CLIENTS)}, got {client}")
    stack = EmbeddedStack(default_state_dir())
    info = stack.info()
    if info is None:
        err.print(f"no mesh runs from {stack.paths.state_dir}")
        raise typer.Exit(FAILED)
    settings = programs.service_environment(info.ports, client, info.identities)
    for name, value in settings.items():
        print(f"export {name}={shlex.quote(value)}")


ProcessNames = Annotated[list[str], typer.Argument(help="Processes as `ps` names them.")]


def stop(names: ProcessNames) -> None:
    """Stop processes in order and keep them stopped, until `start` or the next `up`."""
    stack = _stack_of(names)
    for name in names:
        stack.stop_process(name)
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while still := [name for name in names if stack.status_of(name).pid]:
        if time.monotonic() > deadline:
            err.print(f"still running after {STOPPED_WITHIN_S:g} s: {', '.join(still)}")
            raise typer.Exit(FAILED)
        time.sleep(STOP_CHECK_S)
    err.print(f"stopped: {', '.join(names)}")


def start(names: ProcessNames) -> None:
    """Start processes that were stopped."""
    stack = _stack_of(names)
    for name in names:
        stack.start_process(name)
    err.print(f"started: {', '.join(names)}; `reviewmesh ps` says when they are ready")


def _stack_of(names: list[str]) -> EmbeddedStack:
    """The running mesh; checks that it has these processes."""
    stack = EmbeddedStack(default_state_dir())
    known = [process.name for process in stack.ps()]
    if not known:
        err.print(f"no mesh runs from {stack.paths.state_dir}")
        raise typer.Exit(FAILED)
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return stack


def _is_well(process: ProcessStatus, health: Mapping[str, Health]) -> bool:
    return process.state in HEALTHY and process.name in health and health[process.name].ready


def _words(process: ProcessStatus, health: Mapping[str, Health]) -> str:
    """The health of a process in words; "-" if it does not run."""
    return health[process.name].words if process.pid and process.name in health else "-"


def _as_json(process: ProcessStatus, health: Mapping[str, Health]) -> dict[str, Any]:
    return {
        "process": process.name,
        "state": process.state,
        "ready": _is_well(process, health),
        "says": _words(process, health),
        "pid": process.pid,
        "restarts": process.restarts,
        "up_s": round(process.uptime_s, 3),
        "port": process.port,
        "log": str(process.log),
    }


def start_with_progress(
    stack: EmbeddedStack, brokers: int | None = None, secure: bool | None = None
) -> StackInfo:
    """Start the mesh, showing downloads and each process as it becomes ready."""
    if programs.insights_python() is None:
        err.print(
            "insights do not run: their environment is missing; `make setup` builds "
            f".venv-insights, or set {programs.INSIGHTS_PYTHON} to the Python of another one"
        )
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:

        @contextmanager
        def downloading(name: str, size: int) -> Iterator[Callable[[int], None]]:
            if size < SHOWN_DOWNLOAD_BYTES:
                yield lambda _n_bytes: None
                return
            task = progress.add_task(f"downloading {name}", total=size)
            yield lambda n_bytes: progress.advance(task, n_bytes)
            progress.remove_task(task)

        def ready(name: str, seconds: float) -> None:
            progress.console.print(
                Text.assemble(("ready", "green"), f" {name} after {seconds:.1f} s")
            )

        return stack.up(progress=downloading, on_ready=ready, brokers=brokers, secure=secure)


def _watch(stack: EmbeddedStack) -> None:
    """Show the processes until Ctrl-C or SIGTERM, then stop the mesh."""
    try:
        with Live(console=err, auto_refresh=False) as live:
            while processes := stack.ps():
                live.update(_table(processes, stack.health()), refresh=True)
                time.sleep(WATCH_INTERVAL_S)
        err.print("the mesh was stopped from elsewhere")
    except KeyboardInterrupt:
        err.print("stopping the mesh")
        stack.down()


def _table(processes: list[ProcessStatus], health: Mapping[str, Health]) -> Table:
    table = Table(box=None)
    for name in ("process", "state", "ready", "pid", "restarts", "up", "port", "log"):
        table.add_column(name, overflow="fold")
    for process in processes:
        colour = "green" if process.state == "RUNNING" else "yellow"
        table.add_row(
            process.name,
            Text(process.state, style="red" if process.state == "FATAL" else colour),
            Text(_words(process, health), style="green" if _is_well(process, health) else "red"),
            str(process.pid or ""),
            str(process.restarts),
            _duration(process.uptime_s),
            str(process.port or ""),
            _shown_path(process.log),
        )
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _shown_path(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _print_dead(processes: list[ProcessStatus]) -> None:
    for process in processes:
        if process.state in ("FATAL", "BACKOFF"):
            err.print(f"{process.name} {process.state}, the end of {process.log}:", style="red")
            err.print(log_tail(process.log))


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the foreground as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _interrupted_in_order() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; nothing is left running")
        raise typer.Exit(FAILED) from None
