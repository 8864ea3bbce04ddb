"""docker-compose.yml against the code, the settings and the embedded stack that it stands for."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import BaseModel
from pydantic_settings import BaseSettings

import reviewmesh.settings
import reviewmesh_worker.serving.settings as worker_settings
from reviewmesh.leaving.budgets import read_budgets
from reviewmesh.leaving.policy import read_policy
from reviewmesh.local import broker, registry
from reviewmesh.process import health
from reviewmesh.settings import CandidatesSettings, FallbacksSettings
from reviewmesh_kit.settings import HttpSettings
from reviewmesh_schemas.names import TASKS
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm.arguments import engine_arguments
from reviewmesh_worker.serving import endpoints
from reviewmesh_worker.serving.deployment import CLOSE_TIMEOUT_S, LOAD_TIMEOUT_S
from tests.unit.deploy.files import (
    ROOT,
    answers_to,
    compose,
    dockerfile,
    dotenv,
    environment,
    of_image,
    pins,
    seconds,
    services,
    text,
    variables,
)

SERVICES = of_image("SERVICE_IMAGE") | of_image("INSIGHTS_IMAGE")
CPU_WORKERS = of_image("WORKER_IMAGE")
GPU_WORKERS = of_image("WORKER_VLLM_IMAGE")
WORKERS = CPU_WORKERS | GPU_WORKERS
PIPELINE = {"intake", "joiner", *(f"enricher-{task}" for task in TASKS)}
# Those whose replicas share a group.
# Where it is set, latencies carry the ids of traces.
TRACES = "REVIEWMESH_TRACES__ENDPOINT"
MEMBERS = {*PIPELINE, "insights", "tracer"}
LONG_RUNNING = {*MEMBERS, "lag", "judge", *WORKERS}
SETTINGS: dict[str, tuple[type[BaseSettings], str]] = {
    **dict.fromkeys(SERVICES, (reviewmesh.settings.Settings, "service.Dockerfile")),
    "insights": (reviewmesh.settings.Settings, "insights.Dockerfile"),
    **dict.fromkeys(CPU_WORKERS, (worker_settings.Settings, "worker.Dockerfile")),
    **dict.fromkeys(GPU_WORKERS, (worker_settings.Settings, "worker-vllm.Dockerfile")),
}
SLOTS = "/var/lib/reviewmesh/slots"
# One broker that clients reach by two names; everything else is as in the embedded stack.
OWN_KAFKA = {
    "advertised.listeners",
    "controller.quorum.voters",
    "listener.security.protocol.map",
    "listeners",
    "log.dirs",
}


def settings_of(service: str) -> dict[str, str]:
    """The REVIEWMESH_* that a container of this service sees."""
    dockerfile = SETTINGS[service][1]
    given = services()[service].get("environment", {})
    own = {name: value for name, value in given.items() if value is not None}
    seen = environment(dockerfile) | own
    return {name: value for name, value in seen.items() if name.startswith("REVIEWMESH_")}


def handed_on(service: str) -> set[str]:
    """What a container gets from `.env` or the environment if it is set there."""
    given = services()[service].get("environment", {})
    return {name for name, value in given.items() if value is None}


def unknown_part(name: str, model: type[BaseModel]) -> str | None:
    """The part of REVIEWMESH_A__B that no model has a field for."""
    for part in name.removeprefix("REVIEWMESH_").lower().split("__"):
        if part not in model.model_fields:
            return None if model.model_config.get("extra") == "allow" else part
        nested = model.model_fields[part].annotation
        model = nested if isinstance(nested, type) and issubclass(nested, BaseModel) else BaseModel
    return None


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_one_that_the_process_has(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SETTINGS[name][0]
    for setting, value in settings_of(name).items():
        assert unknown_part(setting, model) is None, f"{setting} of {name} is no setting"
        monkeypatch.setenv(setting, value)
    model()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_handed_on_is_a_setting_and_unset(name: str) -> None:
    model = SETTINGS[name][0]
    for setting in handed_on(name):
        assert unknown_part(setting, model) is None, f"{setting} of {name} is no setting"
    assert not handed_on(name) & dotenv().keys()


def test_routes_and_candidates_are_given_without_changing_the_file() -> None:
    sections: dict[str, type[BaseModel]] = {
        "CANDIDATES": CandidatesSettings,
        "FALLBACKS": FallbacksSettings,
    }
    of = {
        section: {f"REVIEWMESH_{section}__{field.upper()}" for field in settings.model_fields}
        for section, settings in sections.items()
    }
    leaving = {"REVIEWMESH_POLICY", "REVIEWMESH_BUDGETS"}
    asked = leaving | of["FALLBACKS"] | of["CANDIDATES"]
    for task in TASKS:
        assert handed_on(f"enricher-{task}") == asked | {TRACES}
    assert handed_on("joiner") == {TRACES}
    assert handed_on("judge") == of["CANDIDATES"] - {"REVIEWMESH_CANDIDATES__PATIENCE_S"}
    assert handed_on("cli") == leaving


def test_the_files_that_come_with_it_let_nothing_leave() -> None:
    folder = ROOT / dotenv()["LEAVING"]
    assert read_policy(folder / "policy.yaml").rules() == []
    partitions = int(kafka_properties()["num.partitions"])
    budgets = read_budgets(folder / "budgets.yaml", partitions)
    assert budgets.share("", "day").exceeded_by(budgets.call) == "requests"


def test_an_unknown_setting_would_be_noticed() -> None:
    model = reviewmesh.settings.Settings
    assert unknown_part("REVIEWMESH_JOIN__MAX_WAIT", model) == "max_wait"
    assert unknown_part("REVIEWMESH_SLOTS", model) == "slots"
    assert unknown_part("REVIEWMESH_KAFKA__SASL_MECHANISM", model) is None


@pytest.mark.parametrize("name", SETTINGS)
def test_every_command_exists_in_its_image(name: str) -> None:
    service = services()[name]
    command = [*service.get("entrypoint", []), *service["command"]]
    if command[0] == "take-slot":
        assert command[1] == f"{SLOTS}/{name}", "a service takes slots under its own name"
        command = command[2:]
    if command[0] == "reviewmesh":
        project = tomllib.loads(text("pyproject.toml"))["project"]
        assert project["scripts"]["reviewmesh"] == "reviewmesh.cli.__main__:main"
        return
    assert command[:2] == ["python", "-m"]
    assert find_spec(f"{command[2]}.__main__"), f"no module {command[2]}"
    package = command[2].split(".")[0]
    assert package == ("reviewmesh_worker" if name in WORKERS else "reviewmesh")


def test_the_whole_mesh_is_there() -> None:
    assert SERVICES.keys() >= MEMBERS
    assert {f"worker-{task}" for task in TASKS} == CPU_WORKERS.keys()
    for task in TASKS:
        assert SERVICES[f"enricher-{task}"]["command"][-2:] == ["--task", task]
    assert SERVICES["topics"]["command"] == ["reviewmesh", "topics", "apply"]
    assert SERVICES["lag"]["command"][-1] == "reviewmesh.lag"
    assert of_image("INSIGHTS_IMAGE").keys() == {"insights"}
    assert SERVICES["insights"]["command"][-1] == "reviewmesh.insights"


def test_every_image_is_pinned_and_every_pin_is_used() -> None:
    for image in re.findall(r"image: (.*)", text("docker-compose.yml")):
        assert re.fullmatch(r"\$\{\w+\}", image), f"{image} is not taken from .env"
    # Compose reads its own by itself.
    assert variables() == dotenv().keys() - {"COMPOSE_PROFILES"}
    for name, image in pins().items():
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w-]+)?$", image), f"{name}={image} is no version"


def test_versions_are_those_that_the_tests_run() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    locked = text("services/reviewmesh/local/artifacts.lock.toml")
    tags = {name: image.rsplit(":", 1)[1] for name, image in pins().items()}
    for own in ("SERVICE_IMAGE", "INSIGHTS_IMAGE", "WORKER_IMAGE", "WORKER_VLLM_IMAGE"):
        assert tags[own] == project["version"]
    assert f"org.apache.kafka:kafka_2.13:{tags['KAFKA_IMAGE']}" in locked
    assert f"io.apicurio:apicurio-registry-app:{tags['REGISTRY_IMAGE']}" in locked


def kafka_properties() -> dict[str, str]:
    """The image's rule: KAFKA_ off, _ for ., JVM options apart."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in services()["kafka"]["environment"].items()
        if name != "KAFKA_HEAP_OPTS"
    }


def test_the_broker_is_set_up_as_the_embedded_one() -> None:
    here = kafka_properties()
    there = broker.FIXED_PROPERTIES
    assert here.keys() - there.keys() == OWN_KAFKA - {"listener.security.protocol.map"}
    own = OWN_KAFKA | {"broker.session.timeout.ms"}
    assert {name: here[name] for name in there if name not in own} == {
        name: value for name, value in there.items() if name not in own
    }
    # Nothing fences a container that was killed before it starts again: the session has to end.
    assert int(here["broker.session.timeout.ms"]) < int(there["broker.session.timeout.ms"])
    assert here["log.dirs"] == services()["kafka"]["volumes"][0].split(":")[1]


def test_the_registry_keeps_its_ids_as_the_embedded_one() -> None:
    service = services()["registry"]
    folder = service["volumes"][0].split(":")[1]
    here = service["environment"]
    there = registry.environment(ROOT, 8080, 0, None)
    for name in ("APICURIO_STORAGE_KIND", "APICURIO_STORAGE_SQL_KIND", "QUARKUS_HTTP_PORT"):
        assert here[name] == there[name]
    url = there["APICURIO_DATASOURCE_URL"]
    assert here["APICURIO_DATASOURCE_URL"] == url.replace(str(ROOT), folder)
    owner = services()["registry-data"]
    assert owner["entrypoint"] == ["chown", service["user"], folder]
    assert owner["volumes"] == service["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_addresses_lead_to_what_listens_there(name: str) -> None:
    seen = settings_of(name)
    advertised = kafka_properties()["advertised.listeners"].split(",")
    bootstrap = seen["REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS"]
    assert f"BROKER://{bootstrap}" in advertised
    assert services()["kafka"]["hostname"] == bootstrap.split(":")[0]
    url = urlsplit(seen["REVIEWMESH_REGISTRY__URL"])
    port = services()["registry"]["environment"]["QUARKUS_HTTP_PORT"]
    assert (url.netloc, url.path) == (f"registry:{port}", registry.CONFLUENT_API)
    for setting, address in seen.items():
        if setting.startswith("REVIEWMESH_WORKERS__"):
            host, worker_port = address.split(":")
            assert host == "worker-" + setting.removeprefix("REVIEWMESH_WORKERS__").lower()
            assert answers_to(host)
            for worker in answers_to(host):
                assert settings_of(worker)["REVIEWMESH_WORKER__PORT"] == worker_port


def test_enrichers_and_the_judge_are_told_of_workers() -> None:
    """Any enricher asks those of ner for names to mask; the judge asks about labelled texts."""
    wanted = {f"REVIEWMESH_WORKERS__{task.upper()}" for task in TASKS}
    for name in ("judge", *(f"enricher-{task}" for task in TASKS)):
        assert wanted <= settings_of(name).keys()


def test_containers_listen_beyond_their_loopback() -> None:
    for name in LONG_RUNNING:
        assert settings_of(name)["REVIEWMESH_HTTP__HOST"] == "0.0.0.0"
    for name in WORKERS:
        assert settings_of(name)["REVIEWMESH_WORKER__HOST"] == "0.0.0.0"


def run_health_check(test: list[str], port: int) -> int:
    assert test[:2] == ["CMD", "python"]
    command = [argument.replace(":9100/", f":{port}/") for argument in test[2:]]
    return subprocess.run([sys.executable, *command], capture_output=True, timeout=20).returncode


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_health_checks_ask_the_port_that_is_served(name: str) -> None:
    test = services()[name]["healthcheck"]["test"]
    assert f"127.0.0.1:{settings_of(name)['REVIEWMESH_HTTP__PORT']}/readyz" in test[-1]


@pytest.mark.parametrize("waiting_for", ["", "the broker"])
def test_a_service_is_healthy_when_it_is_ready(waiting_for: str) -> None:
    server = health.serve(
        HttpSettings(),
        lambda: float("inf"),
        lambda: health.ReadyzState(waiting_for),
    )
    try:
        code = run_health_check(services()["intake"]["healthcheck"]["test"], server.server_port)
    finally:
        server.shutdown()
    assert (code == 0) == (waiting_for == "")


def test_a_service_that_others_hold_up_is_healthy() -> None:
    """It does all that it can: an update of it must not wait for them."""
    server = health.serve(
        HttpSettings(),
        lambda: float("inf"),
        lambda: health.ReadyzState("", held_up_by="no worker for task ner"),
    )
    try:
        code = run_health_check(services()["intake"]["healthcheck"]["test"], server.server_port)
    finally:
        server.shutdown()
    assert code == 0


@pytest.mark.parametrize("state", ["loading", "serving"])
def test_a_worker_is_healthy_when_it_serves(state: str) -> None:
    server = endpoints.serve(HttpSettings(), lambda: state, lambda: "")
    try:
        code = run_health_check(services()["worker-ner"]["healthcheck"]["test"], server.server_port)
    finally:
        server.shutdown()
    assert (code == 0) == (state == "serving")


def test_start_order() -> None:
    assert services()["topics"]["depends_on"].keys() == {"kafka", "registry"}
    for name in {*MEMBERS, "lag", "judge"}:
        assert services()[name]["depends_on"].keys() == {"topics"}
    for name, service in services().items():
        for other, entry in dict(service.get("depends_on") or {}).items():
            awaited = services()[other]
            if entry["condition"] == "service_healthy":
                assert "test" in awaited["healthcheck"], f"{name} waits for ever for {other}"
            if entry["condition"] == "service_completed_successfully":
                assert awaited.get("restart", "no").split(":")[0] in ("no", "on-failure")


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_a_stop_has_time_to_end_by_itself(name: str) -> None:
    settings = SETTINGS[name][0]()
    worker = isinstance(settings, worker_settings.Settings)
    grace_s = settings.worker.grace_s if worker else settings.grace_s  # type: ignore[attr-defined]
    assert seconds(services()[name]["stop_grace_period"]) >= grace_s + 5


def test_every_container_is_bounded_and_comes_back() -> None:
    for name, service in services().items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        if name not in ("topics", "registry-data", "cli"):
            assert service["restart"] == "unless-stopped", name


@pytest.mark.parametrize("name", SETTINGS)
def test_own_containers_are_hardened(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "user" not in service, "the image says who"


def test_nothing_is_published_beyond_this_machine() -> None:
    for service in services().values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_replicas_have_slots_of_their_own() -> None:
    for name in MEMBERS:
        assert "REVIEWMESH_SLOT" not in settings_of(name), "replicas would fence each other"
        assert services()[name]["command"][0] == "take-slot"
        assert f"slots:{SLOTS}" in services()[name]["volumes"]


def mounts() -> list[tuple[str, str]]:
    return [
        (name, volume["source"] if isinstance(volume, dict) else volume.split(":")[0])
        for name, service in services().items()
        for volume in service.get("volumes", [])
    ]


def test_what_is_mounted_exists() -> None:
    for name, source in mounts():
        # The registry is the user's.
        if source.startswith(".") and source != dotenv()["MODEL_REGISTRY"]:
            assert (ROOT / source).exists(), f"{name} mounts {source}"
    assert {source for _, source in mounts() if not source.startswith(".")} == set(
        compose()["volumes"]
    )


def test_prometheus_reads_a_file_that_exists_and_keeps_its_data() -> None:
    service = services()["prometheus"]
    given = dict(argument.removeprefix("--").split("=", 1) for argument in service["command"])
    sources = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])
    config = given["config.file"].replace("/etc/prometheus", sources["/etc/prometheus"])
    assert (ROOT / config).is_file()
    assert given["storage.tsdb.path"] in sources


def scraped() -> dict[str, set[str]]:
    """The targets of each job as host:port; names that are looked up count as each address."""
    jobs: dict[str, set[str]] = {}
    for job in yaml.safe_load(text("observability/prometheus.yml"))["scrape_configs"]:
        targets = jobs.setdefault(job["job_name"], set())
        for static in job.get("static_configs", []):
            targets |= set(static["targets"])
        for dns in job.get("dns_sd_configs", []):
            assert dns["type"] == "A"
            targets |= {f"{name}:{dns['port']}" for name in dns["names"]}
    return jobs


def test_prometheus_scrapes_every_process_of_the_mesh() -> None:
    jobs = scraped()
    port = {name: settings_of(name)["REVIEWMESH_HTTP__PORT"] for name in LONG_RUNNING}
    assert jobs["service"] == {f"{name}:{port[name]}" for name in PIPELINE}
    assert jobs["insights"] == {f"insights:{port['insights']}"}
    assert {worker for job in jobs["worker"] for worker in answers_to(job.split(":")[0])} == set(
        WORKERS
    )
    for job in jobs["worker"]:
        assert {port[worker] for worker in answers_to(job.split(":")[0])} == {job.split(":")[1]}
    assert jobs["lag"] == {f"lag:{port['lag']}"}
    assert jobs["judge"] == {f"judge:{port['judge']}"}
    assert jobs["tracer"] == {f"tracer:{port['tracer']}"}


def on(profile: str) -> set[str]:
    """The services that run with a profile."""
    return {
        name
        for name, service in services().items()
        if profile in service.get("profiles", [profile])
    }


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_with_each_profile_one_pool_answers_for_each_task(profile: str) -> None:
    for task in TASKS:
        assert len(answers_to(f"worker-{task}") & on(profile)) == 1
    workers = CPU_WORKERS if profile == "cpu" else GPU_WORKERS
    assert on(profile) & WORKERS.keys() == set(workers)


def test_without_a_word_the_workers_on_cpu_run_and_nothing_else_depends_on_profiles() -> None:
    assert dotenv()["COMPOSE_PROFILES"] == "cpu"
    apart = {name for name, service in services().items() if "profiles" in service}
    assert apart == {*WORKERS, "cli", "tracer", "jaeger"}
    for name, service in services().items():
        waits_for = set(service.get("depends_on") or {})
        if name in apart:
            continue
        assert not waits_for & apart, f"{name} would not start without {waits_for & apart}"


@pytest.mark.parametrize("name", GPU_WORKERS)
def test_a_worker_on_a_gpu_has_one_and_serves_one_task(name: str) -> None:
    task = name.removeprefix("worker-gpu-")
    [reserved] = services()[name]["deploy"]["resources"]["reservations"]["devices"]
    # A count would give every worker the first GPU of the machine.
    assert reserved == {
        "driver": "nvidia",
        "device_ids": [dotenv()[f"GPU_{task.upper()}"]],
        "capabilities": ["gpu"],
    }
    assert settings_of(name)["REVIEWMESH_WORKER__TASKS"] == task
    assert name in answers_to(f"worker-{task}")


@pytest.mark.parametrize("name", GPU_WORKERS)
def test_a_worker_on_a_gpu_follows_a_registry_with_vllm(name: str) -> None:
    seen = settings_of(name)
    assert seen["REVIEWMESH_WORKER__ENGINE"] == "vllm"
    assert "REVIEWMESH_VLLM__LOAD_FORMAT" not in seen, "it would answer at random"
    models, cache = services()[name]["volumes"]
    assert models == {
        "type": "bind",
        "source": dotenv()["MODEL_REGISTRY"],
        "target": seen["REVIEWMESH_WORKER__MODEL_REGISTRY"],
        "read_only": True,
        "bind": {"create_host_path": False},
    }
    assert cache.split(":") == ["vllm-cache", environment("worker-vllm.Dockerfile")["HOME"]]


@pytest.mark.parametrize("name", GPU_WORKERS)
def test_a_worker_on_a_gpu_admits_what_the_largest_keeps_busy(name: str) -> None:
    largest = engine_arguments(VllmSettings(), "h200", encoder=False)["max_num_seqs"]
    assert int(settings_of(name)["REVIEWMESH_WORKER__MAX_IN_FLIGHT"]) >= 2 * largest


@pytest.mark.parametrize("name", GPU_WORKERS)
def test_a_worker_on_a_gpu_has_time_to_load_and_to_let_go(name: str) -> None:
    service = services()[name]
    assert seconds(service["healthcheck"]["start_period"]) >= LOAD_TIMEOUT_S
    grace_s = worker_settings.Settings().worker.grace_s
    assert seconds(service["stop_grace_period"]) >= grace_s + CLOSE_TIMEOUT_S + 5
    assert service["shm_size"].endswith("gb"), "Docker gives 64 MB"


def test_what_a_worker_on_a_gpu_compiles_lies_where_it_may_be_loaded() -> None:
    """Docker mounts a tmpfs without leave to execute what it holds."""
    folder = environment("worker-vllm.Dockerfile")["HOME"]
    made = [i.arguments for i in dockerfile("worker-vllm.Dockerfile") if i.name == "RUN"]
    assert f"install --directory --owner 10001 {folder}" in made[-1]
    for name in GPU_WORKERS:
        assert not any(folder.startswith(tmpfs) for tmpfs in services()[name]["tmpfs"])
    for setting, value in environment("worker-vllm.Dockerfile").items():
        if setting.endswith("_DIR"):
            assert value.startswith(f"{folder}/")
