"""Network policies and certificates: just the hops of the picture."""

from __future__ import annotations

from typing import Any

import pytest

from reviewmesh_schemas.names import TASKS
from tests.chart.rendered import (
    CASES,
    FULL,
    NAMESPACE,
    Object,
    container,
    environment,
    of_kind,
    pods,
    text_of,
)

GUARDED = sorted(set(CASES) - {"without"})


def matches(selector: Object, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "Exists"
        if expression["key"] not in labels:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def policies(case: str, name: str, direction: str) -> list[Object]:
    labels = pods(case)[name]["metadata"]["labels"]
    return [
        policy["spec"]
        for policy in of_kind(case, "NetworkPolicy").values()
        if direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], labels)
    ]


def rules(case: str, name: str, direction: str) -> list[Object]:
    return [
        rule
        for policy in policies(case, name, direction)
        for rule in policy.get(direction.lower(), [])
    ]


def inside(case: str, source: str, target: str) -> set[str]:
    """The ports on which one component of the release reaches another."""
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(case).items()}

    def ports(name: str, direction: str, key: str, other: str) -> set[str]:
        return {
            str(port["port"])
            for rule in rules(case, name, direction)
            if any(
                "podSelector" in peer
                and "namespaceSelector" not in peer
                and matches(peer["podSelector"], labels[other])
                for peer in rule.get(key, [])
            )
            for port in rule["ports"]
        }

    return ports(source, "Egress", "to", target) & ports(target, "Ingress", "from", source)


def outside(case: str, name: str) -> dict[str, Any]:
    """Port to peers of what a component may reach beyond the release; None: anywhere."""
    return {
        str(port["port"]): rule.get("to")
        for rule in rules(case, name, "Egress")
        for port in rule["ports"]
        if not any(
            "namespaceSelector" not in peer and "podSelector" in peer for peer in rule.get("to", [])
        )
    }


@pytest.mark.parametrize("case", GUARDED)
def test_what_no_policy_allows_is_refused(case: str) -> None:
    for name in pods(case):
        assert policies(case, name, "Ingress"), name
        assert policies(case, name, "Egress"), name
    nothing = of_kind(case, "NetworkPolicy")[f"{FULL}-nothing"]["spec"]
    assert nothing.keys() == {"podSelector", "policyTypes"}


def expected_hops(case: str) -> set[tuple[str, str]]:
    """From the settings: who has a worker's address may call it."""
    hops = set()
    for source, pod in pods(case).items():
        task = source.removeprefix("enricher-")
        for setting, value in environment(pod).items():
            section = setting.removeprefix("REVIEWMESH_").partition("__")
            if section[0] not in ("WORKERS", "CANDIDATES", "FALLBACKS"):
                continue
            of_task = source == "judge" or section[2].lower() == task
            names = (
                section[0] == "WORKERS"
                and section[2] == "NER"
                and ("REVIEWMESH_POLICY" in environment(pod))
            )
            if not of_task and not names:
                continue
            for address in value.split(","):
                host = address.rpartition("@")[2].rpartition(":")[0]
                if host.endswith(f".{NAMESPACE}.svc"):
                    hops.add((source, host.removeprefix(f"{FULL}-").partition(".")[0]))
    return hops


@pytest.mark.parametrize("case", GUARDED)
def test_inside_the_mesh_only_who_asks_a_worker_reaches_it(case: str) -> None:
    found = {
        (source, target)
        for source in pods(case)
        for target in pods(case)
        if inside(case, source, target)
    }
    assert found == expected_hops(case)
    for source, target in found:
        assert inside(case, source, target) == {"grpc"}


def test_the_hops_of_the_smallest_mesh() -> None:
    assert expected_hops("minimal") == {
        *((f"enricher-{task}", f"worker-{task}") for task in TASKS),
        *(("judge", f"worker-{task}") for task in TASKS),
    }


def test_with_a_policy_all_enrichers_may_ask_for_names() -> None:
    hops = expected_hops("fallback")
    assert {source for source, target in hops if target == "worker-ner"} == {
        "judge",
        *(f"enricher-{task}" for task in TASKS),
    }
    assert {source for source, target in hops if target == "worker-provider"} == {"enricher-topic"}


@pytest.mark.parametrize("case", GUARDED)
def test_services_reach_kafka_and_workers_do_not(case: str) -> None:
    kafka = {"minimal": {"9092"}, "fallback": {"9092"}, "production": {"9093"}}.get(
        case, {"9096", "9097"}
    )
    for name, pod in pods(case).items():
        reached = outside(case, name).keys() - {"53"}
        if not name.startswith("worker-"):
            registry = {"minimal": "8080", "fallback": "8080", "production": "8443"}.get(
                case, "443"
            )
            more = (
                {"50051"} if case == "scram" and name.startswith(("enricher", "judge")) else set()
            )
            if name == "tracer":
                more = {"4318"}
            has_registry = "REVIEWMESH_REGISTRY__URL" in environment(pod)
            assert reached == kafka | more | ({registry} if has_registry else set()), name
        elif environment(pod)["REVIEWMESH_WORKER__ENGINE"] == "openai":
            assert reached == {"443"}
            [peer] = outside(case, name)["443"]
            assert "10.0.0.0/8" in peer["ipBlock"]["except"], "the inside of the company"
        else:
            assert not outside(case, name), f"{name}: a model asks nobody"


@pytest.mark.parametrize("case", GUARDED)
def test_metrics_are_read_by_who_may(case: str) -> None:
    for name in pods(case).keys() - {"topics"}:
        [rule] = [r for r in rules(case, name, "Ingress") if r["ports"][0]["port"] == "http"]
        [peer] = rule["from"]
        assert peer["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "monitoring"
        }


@pytest.mark.parametrize("case", CASES)
def test_ports_of_policies_are_those_of_containers(case: str) -> None:
    for name, pod in pods(case).items():
        there = {port["name"] for port in container(pod).get("ports", [])}
        used = {p["port"] for r in rules(case, name, "Ingress") for p in r["ports"]}
        assert {port for port in used if isinstance(port, str)} <= there


# -- mutual TLS ------------------------------------------------------------------------------


def test_certificates_hold_the_names_by_which_workers_are_called_and_know_callers() -> None:
    certificates = of_kind("production", "Certificate")
    names = {
        found["metadata"]["labels"]["app.kubernetes.io/component"]: found["spec"]["dnsNames"]
        for found in certificates.values()
    }
    hops = expected_hops("production")
    assert names.keys() == {name for hop in hops for name in hop}
    for source, target in hops:
        addresses = ",".join(
            value
            for setting, value in environment(pods("production")[source]).items()
            if "WORKERS__" in setting or "CANDIDATES__" in setting
        )
        [name] = names[target]
        assert f"{name}:50051" in addresses.split(",")
        allowed = environment(pods("production")[target])["REVIEWMESH_WORKER__ALLOWED_CLIENTS"]
        assert set(names[source]) <= set(allowed.split(","))
    for target in {target for _, target in hops}:
        allowed = environment(pods("production")[target])["REVIEWMESH_WORKER__ALLOWED_CLIENTS"]
        callers = {name for source, to in hops if to == target for name in names[source]}
        assert set(allowed.split(",")) == callers


def test_pods_mount_the_secret_that_their_certificate_makes() -> None:
    for found in of_kind("production", "Certificate").values():
        name = found["metadata"]["labels"]["app.kubernetes.io/component"]
        [volume] = [v for v in pods("production")[name]["spec"]["volumes"] if v["name"] == "tls"]
        [source] = volume["projected"]["sources"]
        assert source["secret"]["name"] == found["spec"]["secretName"]
        usages = set(found["spec"]["usages"])
        assert usages == {
            "digital signature",
            "server auth" if name.startswith("worker-") else "client auth",
        }
        assert found["spec"]["privateKey"]["rotationPolicy"] == "Always"


def test_who_calls_nobody_has_no_certificate() -> None:
    for case in ("production", "scram"):
        for name, pod in pods(case).items():
            has = "REVIEWMESH_TLS__KEY" in environment(pod)
            assert has == name.startswith(("worker-", "enricher-", "judge")), name
    assert "kind: Certificate" not in text_of("scram"), "its secrets are there"
