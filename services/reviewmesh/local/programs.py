"""The processes of an embedded mesh, and their settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from reviewmesh.local import broker, registry
from reviewmesh.local.artifacts import Artifacts
from reviewmesh.local.errors import LocalStackError
from reviewmesh.local.paths import StackPaths
from reviewmesh.local.ports import HOST
from reviewmesh.local.secure import Identities
from reviewmesh.local.supervision import Program
from reviewmesh_schemas.names import TASKS

REGISTRY_PORTS = ("registry", "registry.management")
SERVICES = ("intake", *(f"enricher-{task}" for task in TASKS), "joiner", "lag", "judge")
TRACER = "tracer"
"""Runs where an endpoint for spans is set."""
MODULES = {"joiner": "reviewmesh.join", TRACER: "reviewmesh.trace"}
TRACES_ENDPOINT = "REVIEWMESH_TRACES__ENDPOINT"
CONSOLE = "console"
CONSOLE_PAGE = "console.page"
# That of the workers, which inherit it.
MODEL_REGISTRY = "REVIEWMESH_WORKER__MODEL_REGISTRY"
INSIGHTS = "insights"
INSIGHTS_PYTHON = "REVIEWMESH_INSIGHTS_PYTHON"
WORKER = "worker"
SCALABLE = ("intake", *(f"enricher-{task}" for task in TASKS), "joiner", WORKER)
"""What may run several times; a replica after the first is called `enricher-ner-1`."""
REPLICAS_AT_MOST = 16


@dataclass(frozen=True)
class Addresses:
    """How clients reach the mesh."""

    bootstrap_servers: str
    registry_url: str


def addresses(ports: Mapping[str, int], secure: bool) -> Addresses:
    brokers = ",".join(f"{HOST}:{ports[name]}" for name in brokers_of(ports))
    return Addresses(brokers, registry.url(ports["registry"], secure))


def brokers_of(ports: Mapping[str, int]) -> tuple[str, ...]:
    """The names of the brokers that have ports."""
    return tuple(name for name in broker.names(broker.NUMBERS[-1]) if name in ports)


def replicas(name: str, number: int) -> list[str]:
    """The names of so many replicas: the number after the first is the slot."""
    return [name, *(f"{name}-{slot}" for slot in range(1, number))]


def replicas_of(ports: Mapping[str, int], name: str) -> list[str]:
    """Those that have ports."""
    return [each for each in replicas(name, REPLICAS_AT_MOST) if each in ports]


def service_of(name: str) -> tuple[str, str]:
    """What a process is a replica of, and its slot."""
    base, _, slot = name.rpartition("-")
    return (base, slot) if base in SCALABLE and slot.isdecimal() else (name, "0")


def scale_of(ports: Mapping[str, int]) -> dict[str, int]:
    """How many replicas there are of what runs more than once."""
    counts = {name: len(replicas_of(ports, name)) for name in SCALABLE}
    return {name: count for name, count in counts.items() if count > 1}


def grpc_port(worker: str) -> str:
    return f"{worker}.grpc"


def backing_of(ports: Mapping[str, int]) -> tuple[str, ...]:
    """What the services need: the brokers and the registry."""
    return (*brokers_of(ports), "registry")


def insights_python() -> Path | None:
    """The Python that insights run in, which needs Faust; None where there is none.

    It is REVIEWMESH_INSIGHTS_PYTHON, or that of `.venv-insights` beside this environment. Raises
    LocalStackError when the one that was named cannot be run.
    """
    if named := os.environ.get(INSIGHTS_PYTHON):
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise LocalStackError(
                f"{INSIGHTS_PYTHON}: expected the path of a Python that can be run, got {named}"
            )
        return Path(named).absolute()
    environment = Path(sys.prefix).with_name(".venv-insights")
    # Written last: without it the environment is not whole.
    whole = (environment / "insights.stamp").exists()
    return environment / "bin" / "python" if whole else None


def is_traced() -> bool:
    """Whether an endpoint for spans is set, so that the tracer runs."""
    return bool(os.environ.get(TRACES_ENDPOINT))


def port_names(
    mesh: bool,
    insights: bool = False,
    brokers: int = 1,
    scale: Mapping[str, int] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Every port that the mesh listens on. `scale`: replicas of what runs more than once."""
    of_brokers = [port for name in broker.names(brokers) for port in (name, _controller_port(name))]
    backing = (*of_brokers, *REGISTRY_PORTS)
    if not mesh:
        return backing
    own = (*((INSIGHTS,) if insights else ()), *((TRACER,) if is_traced() else ()))
    services = [each for name in SERVICES for each in replicas(name, scale.get(name, 1))]
    workers = replicas(WORKER, scale.get(WORKER, 1))
    calls = map(grpc_port, workers)
    return (*backing, *services, *own, CONSOLE, CONSOLE_PAGE, *workers, *calls)


def _controller_port(name: str) -> str:
    return f"{name}.controller"


def broker_nodes(paths: StackPaths, ports: Mapping[str, int]) -> list[broker.Node]:
    return [
        broker.Node(node_id, paths.folder_of(name), ports[name], ports[_controller_port(name)])
        for node_id, name in enumerate(brokers_of(ports), start=1)
    ]


def backing_programs(
    paths: StackPaths,
    artifacts: Artifacts,
    ports: Mapping[str, int],
    identities: Identities | None = None,
) -> list[Program]:
    """The brokers and the registry."""
    secrets = None if identities is None else identities.registry_properties
    return [
        *(
            Program(
                name=name,
                group="backing",
                command=broker.command(artifacts.kafka_dir, paths.folder_of(name)),
                stop_wait_s=20,
            )
            for name in brokers_of(ports)
        ),
        Program(
            name="registry",
            group="backing",
            command=registry.command(artifacts.apicurio_dir, paths.registry_dir),
            environment=registry.environment(
                paths.registry_dir, ports["registry"], ports["registry.management"], secrets
            ),
            stop_wait_s=20,
        ),
    ]


def mesh_programs(
    paths: StackPaths,
    ports: Mapping[str, int],
    forwarding_secret: str,
    insights: Path | None = None,
    identities: Identities | None = None,
) -> list[Program]:
    """The workers and the services; services are stopped before the workers that they call.

    `insights`: the Python that insights run in; without it they do not run. `identities`: of a
    secure mesh.
    """
    secret = {"REVIEWMESH_INTAKE__FORWARDING_SECRET": forwarding_secret}
    workers = [
        Program(
            name=name,
            group="inference",
            command=[sys.executable, "-m", "reviewmesh_worker"],
            environment=_worker_environment(ports, name)
            | ({} if identities is None else identities.worker_environment()),
        )
        for name in replicas_of(ports, WORKER)
    ]
    pythons = {each: sys.executable for name in SERVICES for each in replicas_of(ports, name)}
    if TRACER in ports:
        pythons[TRACER] = sys.executable
    if insights is not None:
        pythons[INSIGHTS] = str(insights)
    services = [
        _service(name, python, ports, identities, secret if service_of(name)[0] == "intake" else {})
        for name, python in pythons.items()
    ]
    watched = (*pythons, *(worker.name for worker in workers))
    page = {
        "REVIEWMESH_CONSOLE__HOST": HOST,
        "REVIEWMESH_CONSOLE__PORT": str(ports[CONSOLE_PAGE]),
        "REVIEWMESH_CONSOLE__FOLDER": str(paths.console_dir),
        # In a secure mesh its principal may write nothing.
        "REVIEWMESH_CONSOLE__ACTIONS": str(identities is None).lower(),
        "REVIEWMESH_CONSOLE__PROCESSES": ",".join(
            f"{name}={HOST}:{ports[name]}" for name in watched
        ),
    }
    if registry_of_models := os.environ.get(MODEL_REGISTRY):
        page["REVIEWMESH_CONSOLE__MODEL_REGISTRY"] = registry_of_models
    return [*workers, *services, _service(CONSOLE, sys.executable, ports, identities, page)]


def _service(
    name: str,
    python: str,
    ports: Mapping[str, int],
    identities: Identities | None,
    own: Mapping[str, str],
) -> Program:
    service, slot = service_of(name)
    return Program(
        name=name,
        group="services",
        command=[python, "-m", *_module_arguments(service)],
        environment={
            **service_environment(ports, service, identities),
            **_http_environment(ports[name]),
            "REVIEWMESH_SLOT": slot,
            **own,
        },
        stop_wait_s=30,
    )


def _module_arguments(name: str) -> list[str]:
    if name.startswith("enricher-"):
        return ["reviewmesh.enrich", "--task", name.removeprefix("enricher-")]
    return [MODULES.get(name, f"reviewmesh.{name}")]


def service_environment(
    ports: Mapping[str, int], name: str, identities: Identities | None
) -> dict[str, str]:
    """The settings with which a service or a client reaches this mesh."""
    reach = addresses(ports, secure=identities is not None)
    environment = {
        "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": reach.bootstrap_servers,
        "REVIEWMESH_REGISTRY__URL": reach.registry_url,
    }
    workers = [f"{HOST}:{ports[grpc_port(name)]}" for name in replicas_of(ports, WORKER)]
    if workers:
        named = ",".join(workers)
        environment |= {f"REVIEWMESH_WORKERS__{task.upper()}": named for task in TASKS}
    if identities is not None:
        environment |= identities.environment(name)
    return environment


def _worker_environment(ports: Mapping[str, int], name: str) -> dict[str, str]:
    return {
        "REVIEWMESH_WORKER__HOST": HOST,
        "REVIEWMESH_WORKER__PORT": str(ports[grpc_port(name)]),
    } | _http_environment(ports[name])


def _http_environment(port: int) -> dict[str, str]:
    return {"REVIEWMESH_HTTP__HOST": HOST, "REVIEWMESH_HTTP__PORT": str(port)}
