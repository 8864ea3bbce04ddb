"""Who may do what on the broker: what follows from the contracts, and how a cluster differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reviewmesh.avro import topics
from reviewmesh.avro.acls import Grant, grants, named, open_to_all
from reviewmesh.avro.granting import Findings, compare
from reviewmesh_schemas import names

PREFIX = "acme."
WANTED = grants(PREFIX)
OF = named("User:reviewmesh-{service}")


def of(service: str, kind: str = "topic", operation: str = "Write") -> set[str]:
    """The names on which a service may do it, without the prefix."""
    return {
        grant.name.removeprefix(PREFIX)
        for grant in WANTED
        if (grant.principal, grant.kind, grant.operation) == (OF[service], kind, operation)
    }


def test_the_contracts_name_only_principals() -> None:
    for topic in topics.load_topics().topics:
        named_there = {*topic.producers, *topic.consumers, *topic.describers}
        assert named_there <= set(names.PRINCIPALS), topic.name
        assert topic.producers
        assert topic.consumers


def test_an_enricher_writes_the_results_of_its_own_task_alone() -> None:
    for task in names.TASKS:
        written = of(f"enricher-{task}")
        own = {names.RESULT_OF[task], names.SHADOW_OF[task]}
        results = {*names.RESULT_OF.values(), *names.SHADOW_OF.values()}
        assert written & results == own


def test_a_service_joins_its_own_group_and_commits_to_it_alone() -> None:
    assert of("intake", "group", "Read") == {names.INTAKE_GROUP}
    assert of("enricher-ner", "group", "Read") == {"reviewmesh-enricher-ner"}
    assert of("joiner", "group", "Read") == {names.JOINER_GROUP}
    assert of("insights", "group", "Read") == {names.INSIGHTS_GROUP}
    for service in ("lag", "judge", "operator", "producer"):
        assert not of(service, "group", "Read")


def test_the_joiner_sees_what_the_enrichers_have_finished() -> None:
    assert of("joiner", "group", "Describe") >= set(names.ENRICHER_GROUPS.values())


def test_transactional_ids_begin_with_the_group_and_end_with_the_slot() -> None:
    found = {
        (grant.principal, grant.name, grant.pattern)
        for grant in WANTED
        if grant.kind == "transactionalId" and grant.operation == "Write"
    }
    members = {"intake": names.INTAKE_GROUP, "joiner": names.JOINER_GROUP}
    members |= {f"enricher-{task}": group for task, group in names.ENRICHER_GROUPS.items()}
    assert found == {
        *((OF[who], f"{PREFIX}{group}-", "prefix") for who, group in members.items()),
        (OF["judge"], PREFIX + names.JUDGE, "literal"),
    }


def test_all_is_named_under_the_prefix_and_nothing_is_a_wildcard() -> None:
    for grant in WANTED:
        assert grant.kind == "cluster" or grant.name.startswith(PREFIX)
        assert "*" not in grant.name
        assert grant.operation != "All"
        if grant.kind == "topic":
            assert grant.pattern == "literal"
        if grant.kind == "cluster":
            assert grant.principal == OF["operator"]
            assert grant.operation in ("Describe", "DescribeConfigs")


def test_whoever_reads_or_writes_may_look_up_what_it_is() -> None:
    described = {(g.principal, g.kind, g.name) for g in WANTED if g.operation == "Describe"}
    assert {(g.principal, g.kind, g.name) for g in WANTED if g.kind != "cluster"} == {
        each for each in described if each[1] != "cluster"
    }


def test_groups_that_are_watched_may_be_looked_at_by_their_names_on_the_broker() -> None:
    more = set(grants(PREFIX, watched=["billing"])) - set(WANTED)
    assert {(grant.principal, grant.name, grant.operation) for grant in more} == {
        (OF["lag"], "billing", "Describe"),
        (OF["console"], "billing", "Describe"),
        (OF["operator"], "billing", "Describe"),
    }


@pytest.mark.parametrize("template", ["reviewmesh-{service}", "User:all", ""])
def test_a_template_that_names_no_service_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="expected a principal such as"):
        grants("", template)


# -- comparing -------------------------------------------------------------------------------

ACCEPTED = Grant(OF["intake"], "topic", "acme.reviews.accepted", "literal", "Write")
ALICE = "User:alice"
OPEN = open_to_all(PREFIX)


def found(*more: Grant, denied: tuple[Grant, ...] = (), without: Grant | None = None) -> Findings:
    allowed = {grant for grant in WANTED if grant != without} | set(more)
    return compare(WANTED, allowed, denied, OPEN)


def test_what_is_as_it_should_be_differs_in_nothing() -> None:
    assert found() == Findings()


def test_a_right_that_is_missing_or_for_one_host_only_is_told() -> None:
    assert found(without=ACCEPTED).missing == (ACCEPTED,)
    somewhere = replace(ACCEPTED, host="10.0.0.7")
    differs = found(somewhere, without=ACCEPTED)
    assert (differs.missing, differs.beyond) == ((ACCEPTED,), (somewhere,))


@pytest.mark.parametrize(
    "beyond",
    [
        Grant(OF["lag"], "topic", "acme.reviews.accepted", "literal", "Write"),
        Grant(OF["lag"], "topic", "of-others", "literal", "Read"),
        Grant(ALICE, "topic", "acme.reviews.accepted", "literal", "Read"),
        Grant(ALICE, "topic", "acme.", "prefix", "Write"),
        Grant(ALICE, "topic", "*", "literal", "Describe"),
        Grant(ALICE, "topic", "acme.reviews.raw", "literal", "All"),
        Grant(ALICE, "topic", "acme.reviews.enriched", "literal", "Write"),
        Grant("User:*", "group", "acme.reviewmesh-joiner", "literal", "Read"),
        Grant(ALICE, "transactionalId", "acme.reviewmesh-intake-7", "literal", "Write"),
        Grant(ALICE, "transactionalId", "acme.reviewmesh", "prefix", "Write"),
        Grant(OF["intake"], "cluster", "kafka-cluster", "literal", "Alter"),
    ],
    ids=str,
)
def test_what_is_granted_beyond_is_told(beyond: Grant) -> None:
    assert found(beyond).beyond == (beyond,)


@pytest.mark.parametrize(
    "others",
    [
        Grant(ALICE, "topic", "acme.reviews.raw", "literal", "Write"),
        Grant(ALICE, "topic", "acme.reviews.enriched", "literal", "Read"),
        Grant(ALICE, "group", "billing", "literal", "Read"),
        Grant(ALICE, "topic", "reviews.accepted", "literal", "Write"),
        Grant(ALICE, "cluster", "kafka-cluster", "literal", "Alter"),
    ],
    ids=str,
)
def test_clients_of_the_mesh_and_what_is_not_the_mesh_s_are_left_alone(others: Grant) -> None:
    assert found(others) == Findings()


def test_what_denies_a_needed_right_is_told() -> None:
    denials = (
        replace(ACCEPTED, principal="User:*", name="acme.reviews", pattern="prefix"),
        replace(ACCEPTED, operation="All"),
    )
    harmless = (replace(ACCEPTED, principal=ALICE), replace(ACCEPTED, operation="Alter"))
    assert set(found(denied=(*denials, *harmless)).denied) == set(denials)
