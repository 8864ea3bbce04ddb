"""Several replicas of a service and several workers in an embedded mesh: names, ports, settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from reviewmesh.cli.stack import _scale
from reviewmesh.local.monitoring import targets_of
from reviewmesh.local.paths import StackPaths
from reviewmesh.local.programs import mesh_programs, port_names, scale_of, service_of

SCALE = {"enricher-ner": 2, "joiner": 3, "worker": 2}


def ports_of(scale: dict[str, int]) -> dict[str, int]:
    return {name: 20_000 + number for number, name in enumerate(port_names(True, scale=scale))}


def test_the_ports_say_how_many_there_are() -> None:
    assert scale_of(ports_of(SCALE)) == SCALE
    assert scale_of(ports_of({})) == {}
    assert scale_of(ports_of({"joiner": 1})) == {}


def test_each_replica_has_a_slot_of_its_own_and_every_worker_is_called(tmp_path: Path) -> None:
    ports = ports_of(SCALE)
    programs = {p.name: p for p in mesh_programs(StackPaths.at(tmp_path), ports, "a secret")}
    joiners = [programs[name] for name in ("joiner", "joiner-1", "joiner-2")]
    assert [p.environment["REVIEWMESH_SLOT"] for p in joiners] == ["0", "1", "2"]
    assert len({tuple(p.command) for p in joiners}) == 1
    assert len({p.environment["REVIEWMESH_HTTP__PORT"] for p in joiners}) == 3
    called = programs["enricher-ner-1"].environment["REVIEWMESH_WORKERS__NER"].split(",")
    served = [
        programs[name].environment["REVIEWMESH_WORKER__PORT"] for name in ("worker", "worker-1")
    ]
    assert [address.rpartition(":")[2] for address in called] == served
    watched = programs["console"].environment["REVIEWMESH_CONSOLE__PROCESSES"]
    assert f"worker-1=127.0.0.1:{ports['worker-1']}" in watched.split(",")


def test_metrics_of_replicas_carry_the_name_of_their_service() -> None:
    labels = [entry["labels"] for entry in targets_of(ports_of(SCALE))]
    assert labels.count({"job": "worker", "component": "worker"}) == 2
    assert sum(each["component"] == "joiner" for each in labels) == 3


def test_names_that_end_in_no_slot_are_services() -> None:
    assert service_of("enricher-ner-1") == ("enricher-ner", "1")
    assert service_of("enricher-ner") == ("enricher-ner", "0")
    assert service_of("broker-2") == ("broker-2", "0")


def test_a_scale_is_read() -> None:
    assert _scale(["enricher-ner=2", "joiner=03"]) == {"enricher-ner": 2, "joiner": 3}


@pytest.mark.parametrize(
    "word",
    ["", "joiner", "joiner=", "joiner=0", "joiner=17", "joiner=-1", "lag=2", "joiner=\u0662"],
)
def test_another_scale_is_refused_with_what_was_expected(word: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"expected NAME=N .*joiner and 1 to 16, got"):
        _scale([word])


def test_the_console_reads_the_registry_of_models_that_workers_serve_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry, expected in ((None, None), ("/models", "/models")):
        monkeypatch.delenv("REVIEWMESH_WORKER__MODEL_REGISTRY", raising=False)
        if registry is not None:
            monkeypatch.setenv("REVIEWMESH_WORKER__MODEL_REGISTRY", registry)
        programs = mesh_programs(StackPaths.at(tmp_path), ports_of({}), "a secret")
        [console] = [program for program in programs if program.name == "console"]
        assert console.environment.get("REVIEWMESH_CONSOLE__MODEL_REGISTRY") == expected
