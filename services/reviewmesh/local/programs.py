"""The processes of an embedded mesh, and their settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from reviewmesh.local import broker, registry
from reviewmesh.local.artifacts import Artifacts
from reviewmesh.local.paths import StackPaths
from reviewmesh.local.ports import HOST
from reviewmesh.local.supervision import Program
from reviewmesh_schemas.names import TASKS

BACKING = ("broker", "registry")
BACKING_PORTS = ("broker", "broker.controller", "registry", "registry.management")
SERVICES = ("intake", *(f"enricher-{task}" for task in TASKS), "joiner", "lag")
WORKER = "worker"
WORKER_GRPC = "worker.grpc"


@dataclass(frozen=True)
class Addresses:
    """How clients reach the mesh."""

    bootstrap_servers: str
    registry_url: str


def addresses(ports: Mapping[str, int]) -> Addresses:
    return Addresses(f"{HOST}:{ports['broker']}", registry.url(ports["registry"]))


def port_names(mesh: bool) -> tuple[str, ...]:
    """Every port that the mesh listens on."""
    return (*BACKING_PORTS, *SERVICES, WORKER, WORKER_GRPC) if mesh else BACKING_PORTS


def backing_programs(
    paths: StackPaths, artifacts: Artifacts, ports: Mapping[str, int]
) -> list[Program]:
    """The broker and the registry."""
    return [
        Program(
            name="broker",
            group="backing",
            command=broker.command(artifacts.kafka_dir, paths.broker_dir),
            stop_wait_s=20,
        ),
        Program(
            name="registry",
            group="backing",
            command=registry.command(artifacts.apicurio_dir, paths.registry_dir),
            environment=registry.environment(
                paths.registry_dir, ports["registry"], ports["registry.management"]
            ),
            stop_wait_s=20,
        ),
    ]


def mesh_programs(ports: Mapping[str, int], forwarding_secret: str) -> list[Program]:
    """The worker and the services; services are stopped before the worker that they call."""
    own = {"intake": {"REVIEWMESH_INTAKE__FORWARDING_SECRET": forwarding_secret}}
    worker = Program(
        name=WORKER,
        group="inference",
        command=[sys.executable, "-m", "reviewmesh_worker"],
        environment=_worker_environment(ports),
    )
    return [worker, *(_service(name, ports, own.get(name, {})) for name in SERVICES)]


def _service(name: str, ports: Mapping[str, int], own: dict[str, str]) -> Program:
    return Program(
        name=name,
        group="services",
        command=[sys.executable, "-m", *_module_arguments(name)],
        environment=service_environment(ports)
        | _http_environment(ports[name])
        | {"REVIEWMESH_SLOT": "0"}
        | own,
        stop_wait_s=30,
    )


def _module_arguments(name: str) -> list[str]:
    if name.startswith("enricher-"):
        return ["reviewmesh.enrich", "--task", name.removeprefix("enricher-")]
    return [{"joiner": "reviewmesh.join"}.get(name, f"reviewmesh.{name}")]


def service_environment(ports: Mapping[str, int]) -> dict[str, str]:
    """The settings with which services and the command line reach this mesh."""
    reach = addresses(ports)
    environment = {
        "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": reach.bootstrap_servers,
        "REVIEWMESH_REGISTRY__URL": reach.registry_url,
    }
    if WORKER_GRPC in ports:
        worker = f"{HOST}:{ports[WORKER_GRPC]}"
        environment |= {f"REVIEWMESH_WORKERS__{task.upper()}": worker for task in TASKS}
    return environment


def _worker_environment(ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "REVIEWMESH_WORKER__HOST": HOST,
        "REVIEWMESH_WORKER__PORT": str(ports[WORKER_GRPC]),
    } | _http_environment(ports[WORKER])


def _http_environment(port: int) -> dict[str, str]:
    return {"REVIEWMESH_HTTP__HOST": HOST, "REVIEWMESH_HTTP__PORT": str(port)}
