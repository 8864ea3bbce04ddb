"""Who may do what on a cluster: granting what the contracts want, and comparing the two."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from reviewmesh.avro.acls import Grant, Kind, Pattern
from reviewmesh.kafka.clients import quiet

CALL_TIMEOUT_S = 30.0
HOLD_WITHIN_S = 30.0
LOOK_EVERY_S = 0.1
ANYBODY = "User:*"
ANY_NAME = "*"
ALL = "All"
ANY: Any = (
    *(ResourceType.ANY, None, ResourcePatternType.ANY, None, None),
    *(AclOperation.ANY, AclPermissionType.ANY),
)
"""A filter that lets everything pass."""


@dataclass(frozen=True, slots=True)
class Findings:
    """How a cluster differs from the contracts."""

    missing: tuple[Grant, ...] = ()
    beyond: tuple[Grant, ...] = ()
    """Granted, and not needed: to a principal of the mesh, or to others on what is the mesh's."""
    denied: tuple[Grant, ...] = ()
    """Denials that take a needed right away."""


class AclsRefused(Exception):
    """The broker does not tell or change who may do what; the message says what to do."""


class ClusterAcls:
    """The access control list of a cluster. Raises AclsRefused and KafkaException."""

    def __init__(self, kafka: Mapping[str, str]) -> None:
        """`kafka`: options of a client with Alter on the cluster to change, Describe to look."""
        self._admin = AdminClient(quiet(kafka))

    def add(self, wanted: Iterable[Grant]) -> list[Grant]:
        """Grant what is missing, and wait until it holds; returns it.

        Doing so again changes nothing.
        """
        allowed, _ = self._found()
        missing = [grant for grant in wanted if grant not in allowed]
        if missing:
            futures = self._admin.create_acls([_binding(grant) for grant in missing])
            for future in futures.values():
                _answered(future)
            self._wait_for(missing)
        return missing

    def _wait_for(self, added: Collection[Grant]) -> None:
        """The controller answers before the brokers have read the grants, by seconds at times."""
        deadline = time.monotonic() + HOLD_WITHIN_S
        while not self._found()[0].issuperset(added):
            if time.monotonic() > deadline:
                raise AclsRefused(
                    f"the cluster took {len(added)} grants, but after {HOLD_WITHIN_S:g} s a broker "
                    "does not show them all; look at the brokers' logs, then run this again"
                )
            time.sleep(LOOK_EVERY_S)

    def compare(self, wanted: Collection[Grant], open_to_all: Collection[Grant]) -> Findings:
        """`open_to_all`: rights that others than the mesh's principals may have as well."""
        allowed, denied = self._found()
        return compare(wanted, allowed, denied, open_to_all)

    def _found(self) -> tuple[set[Grant], set[Grant]]:
        """What is allowed, and what is denied."""
        everything = AclBindingFilter(*ANY)
        bindings = _answered(self._admin.describe_acls(everything, request_timeout=CALL_TIMEOUT_S))
        known = [binding for binding in bindings if binding.restype in _KINDS]
        allowed, denied = (
            {_grant(binding) for binding in known if binding.permission_type is permission}
            for permission in (AclPermissionType.ALLOW, AclPermissionType.DENY)
        )
        return allowed, denied


def compare(
    wanted: Collection[Grant],
    allowed: Collection[Grant],
    denied: Collection[Grant],
    open_to_all: Collection[Grant],
) -> Findings:
    ours = {grant.principal for grant in wanted}
    beyond = [
        grant
        for grant in allowed
        if grant not in wanted
        and (grant.principal in ours or _intrudes(grant, wanted, open_to_all))
    ]
    against = [denial for denial in denied if any(_takes_away(denial, grant) for grant in wanted)]
    missing = [grant for grant in wanted if grant not in allowed]
    return Findings(*(tuple(sorted(found)) for found in (missing, beyond, against)))


def _intrudes(grant: Grant, wanted: Collection[Grant], open_to_all: Collection[Grant]) -> bool:
    """Whether a stranger's right reaches a resource of the mesh, beyond what clients may do."""
    reached = [own for own in wanted if own.kind != "cluster" and _same_resource(grant, own)]
    return any(
        not any(
            _same_resource(own, each) and grant.operation == each.operation for each in open_to_all
        )
        for own in reached
    )


def _takes_away(denial: Grant, grant: Grant) -> bool:
    return (
        denial.principal in (ANYBODY, grant.principal)
        and denial.operation in (ALL, grant.operation)
        and _same_resource(denial, grant)
    )


def _same_resource(one: Grant, own: Grant) -> bool:
    """Whether what the first is about has something in common with the second."""
    if one.kind != own.kind:
        return False
    if ANY_NAME in (one.name, own.name):
        return True
    if one.pattern == own.pattern == "prefix":
        return one.name.startswith(own.name) or own.name.startswith(one.name)
    if one.pattern == "prefix":
        return own.name.startswith(one.name)
    if own.pattern == "prefix":
        return one.name.startswith(own.name)
    return one.name == own.name


_KINDS: dict[ResourceType, Kind] = {
    ResourceType.TOPIC: "topic",
    ResourceType.GROUP: "group",
    ResourceType.TRANSACTIONAL_ID: "transactionalId",
    ResourceType.BROKER: "cluster",
}
_TYPES = {kind: resource_type for resource_type, kind in _KINDS.items()}
_PATTERNS: dict[ResourcePatternType, Pattern] = {
    ResourcePatternType.LITERAL: "literal",
    ResourcePatternType.PREFIXED: "prefix",
}
_PATTERN_TYPES = {pattern: pattern_type for pattern_type, pattern in _PATTERNS.items()}


def _binding(grant: Grant) -> AclBinding:
    return AclBinding(
        _TYPES[grant.kind],
        grant.name,
        _PATTERN_TYPES[grant.pattern],
        grant.principal,
        grant.host,
        AclOperation[_with_underscores(grant.operation)],
        AclPermissionType.ALLOW,
    )


def _grant(binding: Any) -> Grant:
    return Grant(
        binding.principal,
        _KINDS[binding.restype],
        binding.name,
        _PATTERNS[binding.resource_pattern_type],
        "".join(word.capitalize() for word in binding.operation.name.split("_")),
        binding.host,
    )


def _with_underscores(name: str) -> str:
    return "".join(f"_{c}" if c.isupper() else c.upper() for c in name).removeprefix("_")


def _answered(future: Any) -> Any:
    try:
        return future.result(CALL_TIMEOUT_S)
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.SECURITY_DISABLED:
            raise AclsRefused(
                "the broker has no authorizer: whoever reaches it may do everything; set its "
                "authorizer.class.name"
            ) from error
        if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            raise AclsRefused(
                "the broker refuses this principal: to look it needs Describe on the cluster, to "
                "grant Alter, as an administrator has them"
            ) from error
        raise
