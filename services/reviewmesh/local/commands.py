"""The commands `up`, `down` and `ps` of the embedded stack."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
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

from reviewmesh.local.errors import LocalStackError, UnreachableError
from reviewmesh.local.paths import default_state_dir
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.state import StackInfo
from reviewmesh.local.supervision import ProcessStatus, log_tail

EXIT_FAILED = 1
EXIT_UNREACHABLE = 3
WATCH_INTERVAL_S = 1.0
# Smaller files come and go faster than a line can be read.
SHOWN_DOWNLOAD_BYTES = 5_000_000
HEALTHY = ("RUNNING", "STARTING")

console = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(up)
    app.command()(down)
    app.command()(ps)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once the mesh is ready.")
    ] = False,
) -> None:
    """Run the whole mesh on this machine: broker, registry, services and a worker."""
    stack = EmbeddedStack(default_state_dir())
    with _stop_on_sigterm(), _errors_as_exit_codes():
        info = start_with_progress(stack)
        _print_addresses(stack, info)
        if not detach:
            _watch(stack)


def down(
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove the data of the broker and the registry.")
    ] = False,
) -> None:
    """Stop the mesh of this state folder; its data stays."""
    stack = EmbeddedStack(default_state_dir())
    with _errors_as_exit_codes():
        was_running = stack.down(purge)
    words = "stopped" if was_running else "nothing was running"
    kept = "data removed" if purge else "data kept"
    console.print(f"{words}, {kept}: {stack.paths.state_dir}", soft_wrap=True)


def ps() -> None:
    """Show the processes of the mesh; exit code 1 when one of them is not well."""
    stack = EmbeddedStack(default_state_dir())
    with _errors_as_exit_codes():
        processes = stack.ps()
    if not processes:
        console.print(f"no mesh runs from {stack.paths.state_dir}", soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)
    Console().print(_table(processes))
    _print_dead(processes)
    if any(process.state not in HEALTHY for process in processes):
        raise typer.Exit(EXIT_FAILED)


def start_with_progress(stack: EmbeddedStack) -> StackInfo:
    """Start the mesh, showing downloads and each process as it becomes ready."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:

        @contextmanager
        def downloading(name: str, size: int) -> Iterator[Callable[[int], None]]:
            if size < SHOWN_DOWNLOAD_BYTES:
                yield lambda _n_bytes: None
                return
            task = progress.add_task(f"downloading {name}", total=size)
            yield lambda n_bytes: progress.advance(task, n_bytes)
            progress.remove_task(task)

        def ready(name: str, seconds: float) -> None:
            progress.console.print(f"[green]ready[/green] {name} after {seconds:.1f} s")

        return stack.up(progress=downloading, on_ready=ready)


def _print_addresses(stack: EmbeddedStack, info: StackInfo) -> None:
    console.print(f"broker   {info.bootstrap_servers}")
    console.print(f"registry {info.registry_url}")
    console.print(f"state    {stack.paths.state_dir}", soft_wrap=True)


def _watch(stack: EmbeddedStack) -> None:
    """Show the processes until Ctrl-C or SIGTERM, then stop the mesh."""
    try:
        with Live(console=console, auto_refresh=False) as live:
            while processes := stack.ps():
                live.update(_table(processes), refresh=True)
                time.sleep(WATCH_INTERVAL_S)
        console.print("the mesh was stopped from elsewhere")
    except KeyboardInterrupt:
        console.print("stopping the mesh")
        stack.down()


def _table(processes: list[ProcessStatus]) -> Table:
    table = Table("process", "state", "pid", "restarts", "up", "port", "log", box=None)
    for process in processes:
        colour = "green" if process.state == "RUNNING" else "yellow"
        table.add_row(
            process.name,
            f"[{'red' if process.state == 'FATAL' else colour}]{process.state}[/]",
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
            console.print(f"[red]{process.name} {process.state}[/], the end of {process.log}:")
            console.print(log_tail(process.log), markup=False, highlight=False)


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
def _errors_as_exit_codes() -> Iterator[None]:
    try:
        yield
    except LocalStackError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        unreachable = isinstance(error, UnreachableError)
        raise typer.Exit(EXIT_UNREACHABLE if unreachable else EXIT_FAILED) from None
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left running")
        raise typer.Exit(EXIT_FAILED) from None
