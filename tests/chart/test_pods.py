"""Pods: settings that the processes take, the commands of the images, what security asks for."""

from __future__ import annotations

import inspect
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme

from reviewmesh.avro.acls import grants
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.leaving.budgets import read_budgets
from reviewmesh.leaving.policy import read_policy
from reviewmesh.settings import Settings as ServiceSettings
from reviewmesh_kit.environment import unknown_settings
from reviewmesh_schemas.names import TASKS
from reviewmesh_worker.serving.deployment import CLOSE_TIMEOUT_S, LOAD_TIMEOUT_S
from reviewmesh_worker.serving.settings import Settings as WorkerSettings
from tests.chart.rendered import (
    CASES,
    Object,
    component,
    container,
    environment,
    mounted_files,
    objects,
    of_kind,
    pods,
    text_of,
    workloads,
)
from tests.unit.deploy import files as compose

PODS = [(case, name) for case in CASES for name in pods(case)]
IMAGES = {
    "reviewmesh-service": "service.Dockerfile",
    "reviewmesh-insights": "insights.Dockerfile",
    "reviewmesh-worker": "worker.Dockerfile",
    "reviewmesh-worker-vllm": "worker-vllm.Dockerfile",
}
SERVICES = {
    "intake",
    "joiner",
    "insights",
    "lag",
    "judge",
    "tracer",
    *(f"enricher-{t}" for t in TASKS),
}


def is_worker(name: str) -> bool:
    return name.startswith("worker-")


def dockerfile_of(pod: Object) -> str:
    image = container(pod)["image"].rsplit("/", 1)[-1].split("@")[0].split(":")[0]
    return IMAGES[image]


@cache
def certificate() -> dict[str, bytes]:
    """By the names and endings of files."""
    authority = trustme.CA()
    made = authority.issue_cert("somebody.example")
    return {
        "ca.crt": authority.cert_pem.bytes(),
        "crt": made.cert_chain_pems[0].bytes(),
        "key": made.private_key_pem.bytes(),
    }


def settings_of(
    case: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> ServiceSettings | WorkerSettings:
    """Those that the process reads in its pod, whose files lie in a folder here."""
    pod = pods(case)[name]
    contents = dict(certificate())
    for config_map in of_kind(case, "ConfigMap").values():
        contents |= {file: text.encode() for file, text in config_map["data"].items()}
    there = set(mounted_files(case, pod))
    for file in there:
        path = folder / file.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        content = contents.get(path.name, contents.get(path.suffix.lstrip(".")))
        path.write_bytes(content or b"sixteen characters or more\n")
    for variable in [name for name in os.environ if name.startswith("REVIEWMESH_")]:
        monkeypatch.delenv(variable)
    given = compose.environment(dockerfile_of(pod)) | environment(pod)
    for variable, value in given.items():
        if value.startswith("/etc/reviewmesh/"):
            assert value in there, f"{variable}: nothing is mounted as {value}"
            value = str(folder / value.lstrip("/"))
        monkeypatch.setenv(variable, value)
    assert not unknown_settings(given)
    # Each reads what it knows; the other's sections must be right as well.
    ServiceSettings()
    return WorkerSettings() if is_worker(name) else ServiceSettings()


@pytest.mark.parametrize(("case", "name"), PODS)
def test_every_process_takes_its_settings(
    case: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(case, name, tmp_path, monkeypatch)
    assert settings.http.host == "0.0.0.0"
    ports = {
        port["name"]: port["containerPort"] for port in container(pods(case)[name]).get("ports", [])
    }
    if name != "topics":
        assert settings.http.port == ports["http"]
    if isinstance(settings, WorkerSettings):
        assert settings.worker.port == ports["grpc"]
        assert settings.worker.host == "0.0.0.0"
    elif name.startswith("enricher-") and settings.policy is not None:
        assert settings.budgets is not None
        read_policy(settings.policy)
        read_budgets(settings.budgets, 6)


@pytest.mark.parametrize("setting", ["REVIEWMESH_JOIN__MAX_WAIT", "REVIEWMESH_TLS__CERT"])
def test_a_wrong_setting_would_be_noticed(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(setting, "1")
    with pytest.raises(ValueError, match=r"extra_forbidden|no such"):
        ServiceSettings()


def compose_command(name: str) -> list[str]:
    service = {"worker": "worker-ner"}.get(name.split("-")[0], name)
    command = [*compose.services()[service]["command"]]
    return command[2:] if command[0] == "take-slot" else command


@pytest.mark.parametrize(("case", "name"), PODS)
def test_commands_are_those_of_compose(case: str, name: str) -> None:
    only = container(pods(case)[name])
    assert only["command"] == compose_command(name)
    assert "args" not in only
    worker = dockerfile_of(pods(case)[name]).startswith("worker")
    assert worker == is_worker(name)
    assert (dockerfile_of(pods(case)[name]) == "insights.Dockerfile") == (name == "insights")


def test_the_whole_mesh_is_there() -> None:
    workers = {f"worker-{task}" for task in TASKS}
    assert pods("scram").keys() == SERVICES | {"topics", "worker-candidate"} | workers
    # The tracer is asked for, as in compose.
    assert pods("minimal").keys() == SERVICES - {"tracer"} | {"topics"} | workers
    long_running = {
        name
        for name, service in compose.services().items()
        if "reviewmesh" in service["image"] and name != "cli" and "-gpu-" not in name
    }
    assert pods("scram").keys() - {"worker-candidate"} == long_running


def test_every_setting_of_compose_has_its_place() -> None:
    """In some case, some pod of the same service has it."""
    for name, service in compose.services().items():
        wanted = {n for n in service.get("environment", {}) if n.startswith("REVIEWMESH_")}
        kind = "worker" if name.startswith("worker") else name
        found = {
            variable
            for case in CASES
            for pod_name, pod in pods(case).items()
            if pod_name == kind or (kind == "worker" and is_worker(pod_name))
            for variable in environment(pod)
        }
        if name == "cli":
            continue
        if name.startswith(("enricher", "judge")):
            # By their sections: no case has candidates and fallbacks of every task.
            wanted = {variable.rpartition("__")[0] or variable for variable in wanted}
            found = {variable.rpartition("__")[0] or variable for variable in found}
        if name != "enricher-topic":
            wanted -= {"REVIEWMESH_FALLBACKS"}
        if name == "lag":
            # It reads no record.
            wanted -= {"REVIEWMESH_REGISTRY__URL"}
        assert wanted <= found, name


# -- what a security officer asks ------------------------------------------------------------


@pytest.mark.parametrize(("case", "name"), PODS)
def test_no_process_has_more_than_it_needs(case: str, name: str) -> None:
    pod = pods(case)[name]["spec"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 10001, "as the images say"
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostAliases", "initContainers"}
    only = container(pods(case)[name])
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPort" in port for port in only.get("ports", []))
    assert "envFrom" not in only
    for volume in pod["volumes"]:
        kinds = volume.keys() - {"name"}
        assert len(kinds) == 1, "helm merges a default with what is given"
        # What the profile `restricted` of Kubernetes lets a pod have.
        allowed = {"emptyDir", "projected", "secret", "configMap", "persistentVolumeClaim"}
        assert kinds <= allowed | {"ephemeral", "image", "csi"}, f"{name} mounts {kinds}"


@pytest.mark.parametrize(("case", "name"), PODS)
def test_what_can_be_written_is_bounded_and_what_is_given_is_not_written(
    case: str, name: str
) -> None:
    pod = pods(case)[name]
    mounts = {mount["name"]: mount for mount in container(pod)["volumeMounts"]}
    for volume in pod["spec"]["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"], volume
        elif "ephemeral" not in volume:
            assert mounts[volume["name"]]["readOnly"] is True, volume
    resources = container(pod)["resources"]
    assert resources["limits"]["memory"]
    assert resources["requests"]["cpu"] and resources["requests"]["memory"]


@pytest.mark.parametrize(("case", "name"), PODS)
def test_secrets_are_files(case: str, name: str) -> None:
    for entry in container(pods(case)[name])["env"]:
        assert "secretKeyRef" not in str(entry), entry
    for variable in environment(pods(case)[name]):
        if any(word in variable.lower() for word in ("password", "secret", "api_key")):
            assert variable.endswith("_FILE"), variable


@pytest.mark.parametrize("case", CASES)
def test_no_object_gives_rights(case: str) -> None:
    kinds = {found["kind"] for found in objects(case)}
    assert not {kind for kind in kinds if "Role" in kind or "Webhook" in kind}
    assert "Secret" not in kinds, "secrets are the user's"


# -- starting, serving, stopping -------------------------------------------------------------


@pytest.mark.parametrize(("case", "name"), [(c, n) for c, n in PODS if n != "topics"])
def test_probes_tell_waiting_from_hanging(case: str, name: str) -> None:
    only = container(pods(case)[name])
    paths = {probe: only[probe]["httpGet"]["path"] for probe in only if probe.endswith("Probe")}
    assert paths == {
        # One that waits for a broker or loads a model must not be killed for it.
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    for probe in paths:
        assert only[probe]["httpGet"]["port"] == "http"


def call_timeout_s() -> float:
    return float(inspect.signature(InferenceClient.__init__).parameters["call_timeout_s"].default)


@pytest.mark.parametrize(("case", "name"), PODS)
def test_a_stop_has_time_to_end_by_itself(
    case: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    period_s = pods(case)[name]["spec"]["terminationGracePeriodSeconds"]
    settings = settings_of(case, name, tmp_path, monkeypatch)
    if isinstance(settings, WorkerSettings):
        assert settings.worker.grace_s >= call_timeout_s()
        assert period_s >= settings.worker.grace_s + CLOSE_TIMEOUT_S + 5
    else:
        assert period_s >= settings.grace_s + 5
        if name.startswith("enricher") or name == "judge":
            assert period_s > call_timeout_s()


@pytest.mark.parametrize("case", CASES)
def test_replicas_have_slots_of_their_own_that_stay(case: str) -> None:
    for name, workload in workloads(case).items():
        slots = [e for e in container(pods(case)[name])["env"] if e["name"] == "REVIEWMESH_SLOT"]
        if name in SERVICES:
            assert workload["kind"] == "StatefulSet", "a Deployment's pods have no ordinal"
            [slot] = slots
            label = "metadata.labels['apps.kubernetes.io/pod-index']"
            assert slot["valueFrom"] == {"fieldRef": {"fieldPath": label}}
        else:
            assert not slots


@pytest.mark.parametrize("case", CASES)
def test_of_lag_and_judge_there_is_one(case: str) -> None:
    for name in {"lag", "judge"} & workloads(case).keys():
        workload = workloads(case)[name]
        # A Deployment would start the new one before the old one has ended.
        assert (workload["kind"], workload["spec"]["replicas"]) == ("StatefulSet", 1)


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_their_own_pods_and_no_others(case: str) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(case).items()}
    for found in objects(case):
        selector = found.get("spec", {}).get("selector")
        if found["kind"] in ("PodMonitor", "Job") or not selector:
            continue
        wanted = selector.get("matchLabels", selector).items()
        hits = {name for name, of_pod in labels.items() if wanted <= of_pod.items()}
        assert hits == {component(found)}, found["metadata"]["name"]


@pytest.mark.parametrize("case", sorted(set(CASES) - {"without"}))
def test_every_long_running_pod_may_be_away_one_at_a_time_and_is_spread(case: str) -> None:
    budgets = {component(found): found for found in of_kind(case, "PodDisruptionBudget").values()}
    assert budgets.keys() == pods(case).keys() - {"topics"}
    for name, budget in budgets.items():
        # One that may never be away would keep a node from being drained.
        assert budget["spec"]["maxUnavailable"] == 1
        spread = pods(case)[name]["spec"]["topologySpreadConstraints"]
        keys = {constraint["topologyKey"] for constraint in spread}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        for constraint in spread:
            assert constraint["labelSelector"]["matchLabels"].items() <= (
                pods(case)[name]["metadata"]["labels"].items()
            )


def test_kubernetes_own_variables_stay_out() -> None:
    """It sets REVIEWMESH_… for each Service of a release that is named reviewmesh."""
    for case, name in PODS:
        assert pods(case)[name]["spec"]["enableServiceLinks"] is False


def test_workers_on_gpus() -> None:
    for name in ("worker-topic-h100", "worker-topic-l4"):
        pod = pods("production")[name]
        assert dockerfile_of(pod) == "worker-vllm.Dockerfile"
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 1
        mounts = {mount["mountPath"] for mount in container(pod)["volumeMounts"]}
        home = compose.environment("worker-vllm.Dockerfile")["HOME"]
        assert {"/dev/shm", "/models", home} <= mounts
        deployment = workloads("production")[name]["spec"]
        assert deployment["progressDeadlineSeconds"] >= 600
    kinds = {
        pods("production")[name]["spec"]["nodeSelector"]["nvidia.com/gpu.product"]
        for name in ("worker-topic-h100", "worker-topic-l4")
    }
    assert len(kinds) == 2
    assert LOAD_TIMEOUT_S >= 420, "the example's start is within what a worker allows itself"


def test_a_strategy_is_taken_as_it_is() -> None:
    strategies = {name: found["spec"].get("strategy") for name, found in workloads("scram").items()}
    assert strategies["worker-candidate"] == {"type": "Recreate"}
    assert strategies["worker-ner"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_a_change_of_the_policy_starts_the_enrichers_anew() -> None:
    def leaving(case: str) -> dict[str, Any]:
        return {
            name: pod["metadata"]["annotations"].get("reviewmesh/leaving")
            for name, pod in pods(case).items()
            if name in SERVICES
        }

    before, after = leaving("minimal"), leaving("fallback")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"enricher-{task}" for task in TASKS}


def test_numbers_are_written_out() -> None:
    """Helm reads numbers as floats and would write 1e+06."""
    scram = environment(pods("scram")["intake"])
    assert scram["REVIEWMESH_INTAKE__DEDUPE_IDS"] == "1000000"
    assert scram["REVIEWMESH_KAFKA__SOCKET_TIMEOUT_MS"] == "10000000"
    assert "e+" not in text_of("scram").replace("release+", "")


def test_each_service_is_somebody_at_kafka() -> None:
    users = {
        name: environment(pod)["REVIEWMESH_KAFKA__SASL_USERNAME"]
        for name, pod in pods("scram").items()
        if not is_worker(name)
    }
    assert users["topics"] == "admin"
    assert users["enricher-ner"] == "reviewmesh-enricher-ner"
    assert len(set(users.values())) == len(users)
    for name, pod in pods("scram").items():
        if not is_worker(name):
            [kafka] = [v for v in pod["spec"]["volumes"] if v["name"] == "kafka"]
            secrets = [source["secret"]["name"] for source in kafka["projected"]["sources"]]
            assert secrets == ["kafka-ca", "admin-secret" if name == "topics" else users[name]]


def test_services_have_the_names_that_the_acls_are_granted_to() -> None:
    """`topics acls --format strimzi` makes KafkaUsers, whose secrets have their names."""
    secrets = {}
    for name, pod in pods("production").items():
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == "kafka":
                [_, own] = volume["projected"]["sources"]
                assert [item["key"] for item in own["secret"]["items"]] == ["user.crt", "user.key"]
                secrets[name] = f"User:{own['secret']['name']}"
    granted = {grant.principal for grant in grants("")}
    assert secrets.pop("topics") == "User:reviewmesh-operator"
    assert secrets == {name: f"User:reviewmesh-{name}" for name in secrets}
    assert {*secrets.values(), "User:reviewmesh-operator"} <= granted
    assert secrets.keys() == SERVICES - {"tracer"}


def test_where_reviews_are_traced_latencies_carry_the_ids() -> None:
    """The tracer, and those who measure latencies; nobody where it does not run."""
    measuring = {"joiner", *(f"enricher-{task}" for task in TASKS)}
    traced, untraced = (
        {
            name
            for name in pods(case)
            if "REVIEWMESH_TRACES__ENDPOINT" in environment(pods(case)[name])
        }
        for case in ("scram", "minimal")
    )
    assert traced == measuring | {"tracer"}
    assert not untraced


def test_workers_know_nothing_of_kafka() -> None:
    for case, name in PODS:
        if is_worker(name):
            assert not [
                variable
                for variable in environment(pods(case)[name])
                if variable.startswith(("REVIEWMESH_KAFKA", "REVIEWMESH_REGISTRY"))
            ]
