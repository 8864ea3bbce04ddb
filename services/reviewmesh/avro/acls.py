"""Who may do what on the broker: a principal per service, with the rights that it needs.

The rights follow from the contracts: who writes, reads and describes a topic is in `topics.yaml`,
the groups and the principals are in `names.py`. All names are literal, but for transactional ids,
which end with a replica's slot, and the groups of the example consumer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from reviewmesh.avro.topics import load_topics
from reviewmesh_schemas.names import (
    ENRICHER_GROUPS,
    INSIGHTS_GROUP,
    INSIGHTS_OWN,
    INTAKE_GROUP,
    JOINER_GROUP,
    JUDGE,
    PRINCIPALS,
    READER_GROUP,
    TRACER_GROUP,
)

SERVICE = "{service}"
DEFAULT_PRINCIPAL = f"User:reviewmesh-{SERVICE}"
CLUSTER = "kafka-cluster"
"""Kafka's own name of the only resource of its type."""
ANY_HOST = "*"

Kind = Literal["topic", "group", "transactionalId", "cluster"]
Pattern = Literal["literal", "prefix"]

MEMBER_OF = {
    "intake": INTAKE_GROUP,
    **{f"enricher-{task}": group for task, group in ENRICHER_GROUPS.items()},
    "joiner": JOINER_GROUP,
    "insights": INSIGHTS_GROUP,
    "tracer": TRACER_GROUP,
}
WRITES_TRANSACTIONS = ("intake", *(f"enricher-{task}" for task in ENRICHER_GROUPS), "joiner")
# Which offsets a group has committed.
LOOKS_AT_GROUPS = {
    "joiner": tuple(ENRICHER_GROUPS.values()),
    "lag": tuple(MEMBER_OF.values()),
    "console": tuple(MEMBER_OF.values()),
    "operator": tuple(MEMBER_OF.values()),
}
READS_BY_HAND = tuple(
    name for name in PRINCIPALS if name not in ("insights", "producer", "consumer")
)
CONSUMER_GROUPS = "reviewmesh-consumer"


@dataclass(frozen=True, order=True, slots=True)
class Grant:
    """One principal may do one operation on one resource, or on all with a prefix."""

    principal: str
    kind: Kind
    name: str
    pattern: Pattern
    operation: str
    host: str = ANY_HOST

    def resource(self) -> str:
        """In words."""
        if self.kind == "cluster":
            return "the cluster"
        kind = "transactional id" if self.kind == "transactionalId" else self.kind
        return f"{kind} {self.name}{'…' if self.pattern == 'prefix' else ''}"

    def __str__(self) -> str:
        origin = "" if self.host == ANY_HOST else f" from {self.host}"
        return f"{self.principal}: {self.operation} on {self.resource()}{origin}"


def grants(
    prefix: str, principal: str = DEFAULT_PRINCIPAL, watched: Iterable[str] = ()
) -> tuple[Grant, ...]:
    """Every right that the mesh needs. `watched`: groups beside its own whose lag is measured.

    Raises ValueError where the template names no service.
    """
    of = named(principal)
    found = {
        Grant(of[who], kind, name, pattern, operation)
        for who, kind, name, pattern, operations in _needed(prefix, tuple(watched))
        for operation in operations
    }
    return tuple(sorted(found))


def named(principal: str) -> dict[str, str]:
    """The principal of each service as the broker knows it. Raises ValueError."""
    if SERVICE not in principal or not principal.startswith("User:"):
        raise ValueError(
            f"expected a principal such as {DEFAULT_PRINCIPAL}, with {SERVICE} in it, got "
            f"{principal}"
        )
    return {service: principal.replace(SERVICE, service) for service in PRINCIPALS}


Need = tuple[str, Kind, str, Pattern, tuple[str, ...]]


def _needed(prefix: str, watched: tuple[str, ...]) -> Iterator[Need]:
    yield from _on_topics(prefix)
    for who, group in MEMBER_OF.items():
        yield who, "group", prefix + group, "literal", ("Read", "Describe")
    yield "consumer", "group", prefix + CONSUMER_GROUPS, "prefix", ("Read", "Describe")
    for who, groups in LOOKS_AT_GROUPS.items():
        for group in groups:
            yield who, "group", prefix + group, "literal", ("Describe",)
    for who in ("lag", "console", "operator"):
        for group in watched:
            yield who, "group", group, "literal", ("Describe",)
    for who in READS_BY_HAND:
        yield who, "group", prefix + READER_GROUP, "literal", ("Describe",)
    for who in WRITES_TRANSACTIONS:
        # The slot follows.
        ids = f"{prefix}{MEMBER_OF[who]}-"
        yield who, "transactionalId", ids, "prefix", ("Write", "Describe")
    yield "judge", "transactionalId", prefix + JUDGE, "literal", ("Write", "Describe")
    # How long records are kept depends on options of the brokers; who may do what, on the cluster.
    yield "operator", "cluster", CLUSTER, "literal", ("Describe", "DescribeConfigs")


def _on_topics(prefix: str) -> Iterator[Need]:
    for topic in load_topics().topics:
        name = prefix + topic.name
        for who in topic.producers:
            yield who, "topic", name, "literal", ("Write", "Describe")
        for who in topic.consumers:
            yield who, "topic", name, "literal", ("Read", "Describe")
        for who in topic.describers:
            yield who, "topic", name, "literal", ("Describe",)
        administers = ("Create", "Alter", "AlterConfigs", "DescribeConfigs", "Describe")
        yield "operator", "topic", name, "literal", administers
    for own in INSIGHTS_OWN:
        rights = ("Create", "Describe", "Read", "Write")
        yield "insights", "topic", prefix + own, "literal", rights


def open_to_all(prefix: str) -> tuple[Grant, ...]:
    """What clients of the mesh, whoever they are, may do: the rights of the two examples."""
    of = named(DEFAULT_PRINCIPAL)
    examples = (of["producer"], of["consumer"])
    return tuple(g for g in grants(prefix) if g.principal in examples)
