"""`reviewmesh topics`: creates and lists the topics of the contracts, and who may use them."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from reviewmesh.avro import topics
from reviewmesh.avro.registry import registry_of
from reviewmesh.cli.acls import acls
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.terminal import err, out
from reviewmesh.kafka.replication import in_sync_of, replicas_of
from reviewmesh.query.connection import connect
from reviewmesh.query.reading import CALL_TIMEOUT_S

REGISTRY_TIMEOUT_S = 15.0

app = typer.Typer(help="The topics of the mesh: apply, list, rights.", no_args_is_help=True)
app.command()(acls)


@app.command()
def apply() -> None:
    """Create and adjust the topics and register their schemas; doing so again changes nothing."""
    connection = connect()
    settings = connection.settings
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
    _tell(topics.replication_problems(connection.admin, settings.prefix))


@app.command("list")
def list_() -> None:
    """List the topics; exit code 1 when the broker lacks one."""
    connection = connect()
    there = connection.admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    columns = ("topic", "schema", "partitions", "clean-up", "kept", "on the broker", "replicas")
    table = Table(*columns, box=None)
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
            _replicas(there[name]) if found else "",
        )
    out.print(table)
    few = topics.replication_problems(connection.admin, connection.settings.prefix)
    _tell(few)
    if wrong:
        raise CommandFailed(
            f"{wrong} topics differ from their contracts; run `reviewmesh topics apply`"
        )
    if few:
        raise CommandFailed(f"{len(few)} topics would not outlive the loss of a broker")


def _replicas(found: Any) -> str | Text:
    """How many brokers have its records; fewer are in sync while one is away."""
    replicas, in_sync = replicas_of(found), in_sync_of(found)
    if in_sync == replicas:
        return str(replicas)
    return Text(f"{replicas}, {in_sync} in sync", style="yellow")


def _tell(few: list[str]) -> None:
    for line in few:
        err.print(line, style="yellow")
    if few:
        err.print(
            "a broker that is lost takes the only copies along, or stops what waits for a second "
            "one; add replicas with kafka-reassign-partitions.sh, then run `reviewmesh topics "
            "apply` again (docs/runbook.md)"
        )
