"""`reviewmesh ps`, `logs`, `stop`, `start` and `restart`: single processes of the embedded mesh."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar

import typer
from rich.text import Text

from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.tables import Column, FittingTable, right
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.local import logs as files
from reviewmesh.local.monitoring import targets_of
from reviewmesh.local.paths import StackPaths, default_state_dir
from reviewmesh.local.probes import Health
from reviewmesh.local.stack import EmbeddedStack
from reviewmesh.local.supervision import ProcessStatus, log_tail
from reviewmesh_kit.exit_codes import FAILED

# A service first finishes records in flight; its supervisor kills it after 30 s.
STOPPED_WITHIN_S = 60.0
# A worker loads its model, a broker opens its logs.
READY_WITHIN_S = 180.0
CHECK_EVERY_S = 0.1
HEALTH_EVERY_S = 0.5
HEALTHY = ("RUNNING", "STARTING")
Left = TypeVar("Left", bound=Collection[str])
LEVELS = {"warning": "yellow", "error": "red", "critical": "red"}


def _running(incomplete: str) -> list[str]:
    """For completion in a shell."""
    found = EmbeddedStack(default_state_dir()).ps()
    return [process.name for process in found if process.name.startswith(incomplete)]


def _logged(incomplete: str) -> list[str]:
    names = files.logged(StackPaths.at(default_state_dir()))
    return [name for name in names if name.startswith(incomplete)]


ProcessNames = Annotated[
    list[str], typer.Argument(help="Processes as `ps` names them.", autocompletion=_running)
]


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
        out.print(table_of(processes, health))
        _print_dead(processes)
    if not all(_is_well(process, health) for process in processes):
        raise typer.Exit(FAILED)


def logs(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE...", help="Processes as `ps` names them.", autocompletion=_logged
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=100_000, help="So many of the last lines.")
    ] = 100,
    as_lines: Annotated[
        bool, typer.Option("--json", help="As they were written; other lines in `event`.")
    ] = False,
) -> None:
    """Show what processes of the mesh logged; also those of a mesh that is stopped."""
    paths = StackPaths.at(default_state_dir())
    known = files.logged(paths)
    if not known:
        raise CommandFailed(f"there are no logs in {paths.logs}; no mesh was started there")
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"expected some of {', '.join(known)}, got {', '.join(unknown)}")
    chosen = {name: paths.log_of(name) for name in dict.fromkeys(names)}
    show = _shown_as_json if as_lines else _shown
    several = len(chosen) > 1
    # Opened before the ends are read: nothing between the two is missed, a line may come twice.
    following = files.follow(chosen) if follow else iter(())
    for name, log in chosen.items():
        for line in files.last_lines(log, lines):
            show(name if several else "", line)
    try:
        for name, line in following:
            show(name if several else "", line)
            out.file.flush()
    except KeyboardInterrupt:
        return


def prometheus_targets() -> None:
    """Print the endpoints of the mesh for Prometheus, as file_sd_configs reads them.

    Job names and the label `component` are those that the rules and dashboards go by.
    """
    stack = EmbeddedStack(default_state_dir())
    info = stack.info()
    if info is None:
        err.print(f"no mesh runs from {stack.paths.state_dir}")
        raise typer.Exit(FAILED)
    print(json_text(targets_of(info.ports), indent=2))


def _shown(name: str, line: str) -> None:
    out.print(line_of(name, line))


def line_of(name: str, line: str) -> Text:
    """A line of a log for people: time, level, event, the rest as NAME=VALUE."""
    text = Text(f"{name} " if name else "", style="cyan")
    entry = _entry(line)
    if entry is None:
        return text.append(line, style="default")
    at, level = entry.pop("timestamp", ""), str(entry.pop("level", ""))
    # The name of the log says it.
    entry.pop("service", None)
    text.append(f"{at} ", style="dim")
    text.append(f"{level:<7} ", style=LEVELS.get(level, "default"))
    text.append(str(entry.pop("event", "")), style="bold")
    exception = entry.pop("exception", None)
    for key, value in entry.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.append(f" {key}=", style="dim")
        text.append(shown, style="default")
    if exception is not None:
        text.append(f"\n{exception}", style="default")
    return text


def _entry(line: str) -> dict[str, Any] | None:
    """What a service writes; None for a line of the broker or the registry."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _shown_as_json(name: str, line: str) -> None:
    entry = _entry(line)
    found = {"event": line} if entry is None else entry
    print(json_text({"process": name, **found} if name else found), flush=True)


def stop(names: ProcessNames) -> None:
    """Stop processes in order and keep them stopped, until `start` or the next `up`."""
    stack = _stack_of(names)
    _stop(stack, names)
    err.print(f"stopped: {', '.join(names)}")


def start(names: ProcessNames) -> None:
    """Start processes that were stopped."""
    stack = _stack_of(names)
    for name in names:
        stack.start_process(name)
    err.print(f"started: {', '.join(names)}; `reviewmesh ps` says when they are ready")


def restart(names: ProcessNames) -> None:
    """Stop processes and start them again; returns when they are ready, else with exit code 1."""
    stack = _stack_of(names)
    _stop(stack, [name for name in names if stack.status_of(name).pid])
    for name in names:
        stack.start_process(name)
    waiting = _wait(lambda: _not_ready(stack, names), READY_WITHIN_S, HEALTH_EVERY_S)
    if waiting:
        words = "; ".join(f"{name}: {why}" for name, why in waiting.items())
        raise CommandFailed(
            f"not ready after {READY_WITHIN_S:g} s: {words}; see `reviewmesh logs {names[0]}`"
        )
    err.print(f"restarted and ready: {', '.join(names)}")


def _stop(stack: EmbeddedStack, names: Collection[str]) -> None:
    for name in names:
        stack.stop_process(name)
    still = _wait(
        lambda: [name for name in names if stack.status_of(name).pid],
        STOPPED_WITHIN_S,
        CHECK_EVERY_S,
    )
    if still:
        raise CommandFailed(f"still running after {STOPPED_WITHIN_S:g} s: {', '.join(still)}")


def _not_ready(stack: EmbeddedStack, names: Collection[str]) -> dict[str, str]:
    health = stack.health()
    return {
        process.name: _reason(process, health)
        for process in stack.ps()
        if process.name in names and not _is_well(process, health)
    }


def _wait(left: Callable[[], Left], within_s: float, every_s: float) -> Left:
    """Until nothing is left; returns what is after the deadline."""
    deadline = time.monotonic() + within_s
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return found


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


def _reason(process: ProcessStatus, health: Mapping[str, Health]) -> str:
    """Why it is not ready, or what delays its records; empty when all is well."""
    words = _words(process, health)
    if process.state not in HEALTHY:
        return process.state if words == "-" else f"{process.state}: {words}"
    return words.removeprefix("ready").removeprefix("; ")


def _as_json(process: ProcessStatus, health: Mapping[str, Health]) -> dict[str, Any]:
    return {
        "process": process.name,
        "state": process.state,
        "ready": _is_well(process, health),
        "says": _words(process, health),
        "reason": _reason(process, health) or None,
        "pid": process.pid,
        "restarts": process.restarts,
        "up_s": round(process.uptime_s, 3),
        "port": process.port,
        "log": str(process.log),
    }


def table_of(processes: list[ProcessStatus], health: Mapping[str, Health]) -> FittingTable:
    reason = Column("reason", wraps=True)
    table = FittingTable("process", "ready", *right("up", "restarts", "pid", "port"), reason)
    for process in processes:
        well = _is_well(process, health)
        table.add_row(
            process.name,
            Text("yes", style="green") if well else Text("no", style="red"),
            _duration(process.uptime_s) if process.pid else "-",
            str(process.restarts),
            str(process.pid or "-"),
            str(process.port or "-"),
            Text(_reason(process, health), style="yellow" if well else "red"),
        )
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _print_dead(processes: list[ProcessStatus]) -> None:
    for process in processes:
        if process.state in ("FATAL", "BACKOFF"):
            err.print(f"{process.name} {process.state}, the end of {process.log}:", style="red")
            err.print(log_tail(process.log))
