"""`reviewmesh up`, `down` and `env`: the embedded stack."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated

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
from rich.text import Text

from reviewmesh.cli.completing import among
from reviewmesh.cli.interrupting import interrupted_by_sigterm
from reviewmesh.cli.processes import table_of
from reviewmesh.cli.terminal import err
from reviewmesh.local import programs, state
from reviewmesh.local.broker import NUMBERS
from reviewmesh.local.paths import default_state_dir
from reviewmesh.local.ports import moved
from reviewmesh.local.secure import CLIENTS, OPERATOR
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.state import StackInfo
from reviewmesh.local.supervision import unused_settings
from reviewmesh_kit.exit_codes import FAILED

WATCH_INTERVAL_S = 1.0
# Smaller files come and go faster than a line can be read.
SHOWN_DOWNLOAD_BYTES = 5_000_000


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
    scale: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=N",
            help=f"Replicas of {', '.join(programs.SCALABLE[:-1])}; may be given several times; as "
            "many as before where nothing is said.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=programs.REPLICAS_AT_MOST,
            help="As many as before where nothing is said.",
        ),
    ] = None,
) -> None:
    """Run the whole mesh on this machine: brokers, registry, services and a worker."""
    if brokers not in (None, *NUMBERS):
        raise typer.BadParameter(f"--brokers: expected {' or '.join(map(str, NUMBERS))}")
    wanted = _scale(scale or []) | ({programs.WORKER: workers} if workers else {})
    stack = EmbeddedStack(default_state_dir())
    with interrupted_by_sigterm(), _interrupted_in_order():
        earlier = state.read(stack.paths)
        info = start_with_progress(stack, brokers, secure, wanted)
        # Those of the broker and the registry never move by themselves.
        for name, (old, new) in moved(earlier.ports if earlier else {}, info.ports).items():
            err.print(f"{name} is on port {new} now: {old} is taken", style="yellow")
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
        else:
            err.print('clients  eval "$(reviewmesh env)"')
        if not detach:
            _watch(stack)


def _scale(words: list[str]) -> dict[str, int]:
    """Of `enricher-ner=2`. Raises BadParameter."""
    scalable, most, wanted = programs.SCALABLE[:-1], programs.REPLICAS_AT_MOST, {}
    for word in words:
        found = re.fullmatch(r"([a-z-]+)=([0-9]{1,2})", word)
        if found is None or found[1] not in scalable or not 1 <= int(found[2]) <= most:
            raise typer.BadParameter(
                f"--scale: expected NAME=N with a name of {', '.join(scalable)} and 1 to {most}, "
                f"got {word}"
            )
        wanted[found[1]] = int(found[2])
    return wanted


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


def env(
    client: Annotated[
        str,
        typer.Argument(help=f"Who connects: {', '.join(CLIENTS)}.", autocompletion=among(CLIENTS)),
    ] = OPERATOR,
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


def start_with_progress(
    stack: EmbeddedStack,
    brokers: int | None = None,
    secure: bool | None = None,
    scale: Mapping[str, int] = MappingProxyType({}),
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

        return stack.up(
            progress=downloading, on_ready=ready, brokers=brokers, secure=secure, scale=scale
        )


def _watch(stack: EmbeddedStack) -> None:
    """Show the processes until Ctrl-C or SIGTERM, then stop the mesh."""
    try:
        with Live(console=err, auto_refresh=False) as live:
            while processes := stack.ps():
                live.update(table_of(processes, stack.health()), refresh=True)
                time.sleep(WATCH_INTERVAL_S)
        err.print("the mesh was stopped from elsewhere")
    except KeyboardInterrupt:
        err.print("stopping the mesh")
        stack.down()


@contextmanager
def _interrupted_in_order() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; nothing is left running")
        raise typer.Exit(FAILED) from None
