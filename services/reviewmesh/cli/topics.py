"""`reviewmesh topics`: creates and lists the topics of the contracts, and who may use them."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from reviewmesh.avro import topics
from reviewmesh.avro.registry import registry_of
from reviewmesh.cli.acls import acls
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.terminal import out
from reviewmesh.query.connection import connect
from reviewmesh.query.reading import CALL_TIMEOUT_S

REGISTRY_TIMEOUT_S = 15.0

app = typer.Typer(help="The topics of the mesh: apply, list, rights.", no_args_is_help=True)
app.command()(acls)


@app.command()
def apply() -> None:
    """Create and adjust the topics and register their schemas; doing so again changes nothing."""
    settings = connect().settings
    windows = (
        settings.join.max_wait_s,
        settings.join.late_window_s,
        settings.intake.dedupe_window_s,
    )
    registry = registry_of(settings.registry, REGISTRY_TIMEOUT_S)
    try:
        done = topics.apply(settings.kafka.as_librdkafka(), registry, settings.prefix, max(windows))
    except topics.TopicsError as error:
        raise CommandFailed(str(error)) from error
    for line in done:
        out.print(line)


@app.command("list")
def list_() -> None:
    """List the topics; exit code 1 when the broker lacks one."""
    connection = connect()
    there = connection.admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    table = Table("topic", "schema", "partitions", "clean-up", "kept", "on the broker", box=None)
    wrong = 0
    for topic in topics.load_topics().topics:
        name = connection.topic(topic.name)
        found = len(there[name].partitions) if name in there else 0
        wrong += not found or bool(
            topics.shape_problem(topic, connection.settings.prefix, there[name])
        )
        table.add_row(
            name,
            topic.schema,
            str(topic.partitions),
            topic.cleanup_policy,
            f"{topic.retention_hours} h",
            f"{found} partitions" if found else Text("missing", style="red"),
        )
    out.print(table)
    if wrong:
        raise CommandFailed(
            f"{wrong} topics differ from their contracts; run `reviewmesh topics apply`"
        )
