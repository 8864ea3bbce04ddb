"""`reviewmesh topics acls`: who may do what on the broker, as the contracts want it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any

import typer
import yaml

from reviewmesh.avro.acls import DEFAULT_PRINCIPAL, Grant, grants, open_to_all
from reviewmesh.avro.granting import AclsRefused, ClusterAcls, Findings
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.tables import Column, FittingTable
from reviewmesh.cli.terminal import json_text, out
from reviewmesh.query.connection import connect
from reviewmesh.settings import Settings

KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
STRIMZI = "kafka.strimzi.io/v1beta2"


class Format(StrEnum):
    TABLE = "table"
    STRIMZI = "strimzi"
    JSON = "json"


def acls(
    apply: Annotated[
        bool, typer.Option("--apply", help="Grant what is missing; nothing is taken away.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare with the broker: what is missing, what is granted beyond, what is "
            "denied; exit code 1 if anything is.",
        ),
    ] = False,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="strimzi: a KafkaUser for each principal; json: a line for each right.",
        ),
    ] = Format.TABLE,
    principal: Annotated[
        str,
        typer.Option(
            help="The name of each service on the broker, such as 'User:CN={service},O=Example' "
            "for certificates."
        ),
    ] = DEFAULT_PRINCIPAL,
    cluster: Annotated[
        str, typer.Option(help="The Kafka resource that the KafkaUsers belong to.")
    ] = "kafka",
) -> None:
    """Print the rights that each service needs on the broker; or apply or check them."""
    if apply and check:
        raise typer.BadParameter("expected --apply or --check, got both")
    settings = connect().settings if apply or check else Settings()
    try:
        wanted = grants(settings.prefix, principal, settings.lag.groups)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if apply:
        _apply(settings, wanted)
    elif check:
        _check(settings, wanted)
    elif format_ is Format.STRIMZI:
        print(yaml.safe_dump_all(_kafka_users(wanted, cluster), sort_keys=False), end="")
    elif format_ is Format.JSON:
        for grant in wanted:
            print(json_text(_as_json(grant)))
    else:
        out.print(table_of(wanted))


def _apply(settings: Settings, wanted: Collection[Grant]) -> None:
    try:
        added = ClusterAcls(settings.kafka.as_librdkafka()).add(wanted)
    except AclsRefused as error:
        raise CommandFailed(str(error)) from error
    for grant in added:
        out.print(f"granted {grant}")
    out.print(f"{len(added)} rights granted, {len(wanted) - len(added)} were there")


def _check(settings: Settings, wanted: Collection[Grant]) -> None:
    cluster = ClusterAcls(settings.kafka.as_librdkafka())
    try:
        found = cluster.compare(wanted, open_to_all(settings.prefix))
    except AclsRefused as error:
        raise CommandFailed(str(error)) from error
    for word, differing in (
        ("missing", found.missing),
        ("beyond", found.beyond),
        ("denied", found.denied),
    ):
        for grant in differing:
            out.print(f"{word}  {grant}")
    if found != Findings():
        raise CommandFailed(
            f"{len(found.missing)} rights are missing, {len(found.beyond)} granted beyond what the "
            f"mesh needs, {len(found.denied)} denied; `reviewmesh topics acls --apply` grants what "
            "is missing, and what is too much is taken away with Kafka's own kafka-acls"
        )
    out.print(f"{len(wanted)} rights are granted, and no others")


def table_of(wanted: Iterable[Grant]) -> FittingTable:
    table = FittingTable(
        *(Column(name, wraps=True) for name in ("principal", "resource", "operations"))
    )
    for (who, resource), same in groupby(wanted, lambda grant: (grant.principal, grant.resource())):
        table.add_row(who, resource, ", ".join(grant.operation for grant in same))
    return table


def _as_json(grant: Grant) -> dict[str, str]:
    return {
        "principal": grant.principal,
        "resource": grant.kind,
        "name": grant.name,
        "pattern": grant.pattern,
        "operation": grant.operation,
        "host": grant.host,
    }


def _kafka_users(wanted: Iterable[Grant], cluster: str) -> list[dict[str, Any]]:
    return [
        _kafka_user(who.removeprefix("User:"), list(same), cluster)
        for who, same in groupby(wanted, attrgetter("principal"))
    ]


def _kafka_user(name: str, wanted: list[Grant], cluster: str) -> dict[str, Any]:
    if not KUBERNETES_NAME.fullmatch(name):
        raise CommandFailed(
            f"a KafkaUser cannot be called {name}: Kubernetes takes lower case, digits, '-' and "
            "'.'; give --principal User:NAME with {service} in it"
        )
    return {
        "apiVersion": STRIMZI,
        "kind": "KafkaUser",
        "metadata": {"name": name, "labels": {"strimzi.io/cluster": cluster}},
        "spec": {
            "authentication": {"type": "tls"},
            "authorization": {
                "type": "simple",
                "acls": [_rule(list(same)) for _, same in groupby(wanted, Grant.resource)],
            },
        },
    }


def _rule(same: list[Grant]) -> dict[str, Any]:
    first = same[0]
    of: dict[str, str] = {"type": first.kind}
    if first.kind != "cluster":
        of |= {"name": first.name, "patternType": first.pattern}
    return {
        "resource": of,
        "operations": [grant.operation for grant in same],
        "host": first.host,
    }
