"""`reviewmesh tail`: prints records of a topic as they are committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from reviewmesh.avro.codec import DecodeError
from reviewmesh.avro.topics import load_topics
from reviewmesh.cli.completing import among
from reviewmesh.cli.conditions import condition_of
from reviewmesh.cli.names import short_topic
from reviewmesh.cli.render import enriched_line
from reviewmesh.cli.terminal import err, json_text, out, shortened
from reviewmesh.kafka.record import Record
from reviewmesh.leaving.policy import read_policy
from reviewmesh.leaving.yamlfile import FileProblem
from reviewmesh.query.connection import Connection, connect, topic_named
from reviewmesh.query.deadletters import erasures
from reviewmesh.query.outgoing import Outgoing
from reviewmesh.query.reading import follow
from reviewmesh.query.values import as_json, iso, schema_of
from reviewmesh.query.where.matching import matcher
from reviewmesh_schemas.names import ENRICHED, TASKS

SHOWN_ERROR = 500


def _topics(incomplete: str) -> list[str]:
    return among(short_topic(topic.name) for topic in load_topics().topics)(incomplete)


def tail(
    topic: Annotated[
        str, typer.Option(help="enriched, dead-letter, raw, accepted …", autocompletion=_topics)
    ] = "enriched",
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest record.")
    ] = False,
    max_records: Annotated[
        int | None, typer.Option("--max", min=1, help="End after this many records.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="End after this many seconds.")
    ] = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a record.")] = False,
    leaving: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION",
            help="Only text and language, masked, of enriched reviews that the policy lets leave "
            "for this region, as JSON; several times: for all of them.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Only enriched reviews that it chooses, such as 'stars < 3 and complete', "
            "with fields of a lineage as topic.model_version; see docs/reprocess.md.",
        ),
    ] = None,
) -> None:
    """Show records of a topic; exit code 1 when the timeout comes before --max records did."""
    try:
        name = topic_named(topic)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--topic") from error
    connection = connect()
    outgoing = _outgoing(connection, name, leaving) if leaving else None
    chosen = _chosen(name, where) if where is not None else None
    schema, shown = schema_of(name), 0
    try:
        for record, decoded in decoded_records(connection, name, from_beginning, timeout):
            if chosen is not None and not chosen(decoded):
                continue
            if outgoing is None:
                _show(record, decoded, schema, as_lines)
            elif (masked := outgoing.masked(decoded)) is not None:
                print(json_text(masked), flush=True)
            else:
                continue
            shown += 1
            if shown == max_records:
                return
    finally:
        for reason, count in outgoing.stay.items() if outgoing else ():
            err.print(f"{count} reviews stay: {reason}")
    if max_records is not None:
        err.print(f"{shown} of {max_records} records came within {timeout:g} s")
        raise typer.Exit(1)


def _chosen(topic: str, where: str) -> Callable[[dict[str, Any]], bool]:
    if topic != ENRICHED:
        raise typer.BadParameter(f"expected the enriched topic, got {topic}", param_hint="--where")
    return matcher(condition_of(where, TASKS[0]))


def _outgoing(connection: Connection, topic: str, regions: list[str]) -> Outgoing:
    if topic != ENRICHED:
        raise typer.BadParameter(
            f"expected the enriched topic, got {topic}", param_hint="--leaving"
        )
    if connection.settings.policy is None:
        raise typer.BadParameter(
            "expected REVIEWMESH_POLICY to name the policy: without one nothing leaves",
            param_hint="--leaving",
        )
    try:
        policy = read_policy(connection.settings.policy)
    except FileProblem as error:
        raise typer.BadParameter(f"REVIEWMESH_POLICY: {error}", param_hint="--leaving") from error
    return Outgoing(policy, regions, erasures(connection))


def decoded_records(
    connection: Connection, topic: str, from_beginning: bool, timeout_s: float | None
) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Records as they are committed; invalid ones are reported and skipped."""
    codec = connection.codec(topic)
    for record in follow(connection, topic, from_beginning, timeout_s):
        if record.value is None:
            continue
        try:
            decoded = codec.decode(record.value)
        except DecodeError as error:
            place = f"{record.partition}/{record.offset}"
            err.print(f"{place}: {shortened(str(error), SHOWN_ERROR)}", style="red")
            continue
        yield record, decoded


def _show(record: Record, decoded: dict[str, Any], schema: dict[str, Any], as_lines: bool) -> None:
    if as_lines:
        print(json_text(as_json(schema, decoded)), flush=True)
    elif record.topic == ENRICHED:
        out.print(enriched_line(decoded))
    else:
        place = f"{record.partition}/{record.offset}"
        out.print(iso(record.timestamp_ms), place, json_text(as_json(schema, decoded)))
