"""`reviewmesh topics`: creates and lists the topics of the contracts, and who may use them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from reviewmesh.avro import topics
from reviewmesh.avro.registry import registry_of
from reviewmesh.cli.acls import acls
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.names import short_topic
from reviewmesh.cli.tables import Cell, FittingTable
from reviewmesh.cli.terminal import err, json_text, out
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


@dataclass(frozen=True)
class FoundTopic:
    """A topic of the contracts, and what of it is on the broker."""

    contract: topics.TopicContract
    name: str
    partitions: int
    """0: the broker lacks it."""
    problem: str
    replicas: int
    in_sync: int

    def as_json(self) -> dict[str, Any]:
        contract = self.contract
        return {
            "topic": self.name,
            "schema": contract.schema,
            "partitions": contract.partitions,
            "cleanup_policy": contract.cleanup_policy,
            "retention_hours": contract.retention_hours,
            "found_partitions": self.partitions,
            "replicas": self.replicas,
            "in_sync": self.in_sync,
            "problem": self.problem or None,
        }


@app.command("list")
def list_(
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a topic.")] = False,
) -> None:
    """List the topics; exit code 1 when the broker lacks one."""
    connection = connect()
    prefix = connection.settings.prefix
    there = connection.admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    found = [
        _found(topic, prefix, there.get(connection.topic(topic.name)))
        for topic in topics.load_topics().topics
    ]
    if as_lines:
        for item in found:
            print(json_text(item.as_json()))
    else:
        out.print(table_of(found))
    few = topics.replication_problems(connection.admin, prefix)
    _tell(few)
    wrong = [item for item in found if item.problem]
    for item in wrong:
        if item.partitions:
            err.print(item.problem, style="yellow")
    if wrong:
        raise CommandFailed(
            f"{len(wrong)} topics differ from their contracts; run `reviewmesh topics apply`"
        )
    if few:
        raise CommandFailed(f"{len(few)} topics would not outlive the loss of a broker")


def _found(contract: topics.TopicContract, prefix: str, there: Any) -> FoundTopic:
    name = prefix + contract.name
    if there is None:
        return FoundTopic(contract, name, 0, f"{name} is not on the broker", 0, 0)
    return FoundTopic(
        contract,
        name,
        len(there.partitions),
        topics.shape_problem(contract, prefix, there) or "",
        replicas_of(there),
        in_sync_of(there),
    )


def table_of(found: Iterable[FoundTopic]) -> FittingTable:
    table = FittingTable("topic", "schema", "partitions", "clean-up", "kept", "replicas")
    for item in found:
        contract = item.contract
        table.add_row(
            short_topic(contract.name),
            contract.schema,
            _partitions(item),
            contract.cleanup_policy,
            f"{contract.retention_hours} h",
            _replicas(item) if item.partitions else "",
        )
    return table


def _partitions(item: FoundTopic) -> Cell:
    if not item.partitions:
        return Text("missing", style="red")
    if item.partitions == item.contract.partitions:
        return str(item.partitions)
    return Text(f"{item.contract.partitions}, has {item.partitions}", style="yellow")


def _replicas(item: FoundTopic) -> Cell:
    """How many brokers have its records; fewer are in sync while one is away."""
    if item.in_sync == item.replicas:
        return str(item.replicas)
    return Text(f"{item.replicas}, {item.in_sync} in sync", style="yellow")


def _tell(few: list[str]) -> None:
    for line in few:
        err.print(line, style="yellow")
    if few:
        err.print(
            "a broker that is lost takes the only copies along, or stops what waits for a second "
            "one; add replicas with kafka-reassign-partitions.sh, then run `reviewmesh topics "
            "apply` again (docs/runbook.md)"
        )
