"""Several brokers in one state folder: names, ports, configuration, and whose data it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewmesh.local import broker, programs
from reviewmesh.local.errors import LocalStackError
from reviewmesh.local.paths import StackPaths
from reviewmesh.local.stack import EmbeddedStack


def prepared(folder: Path, number: int, first_port: int = 20_000) -> list[dict[str, str]]:
    """The configuration of each broker."""
    names = programs.port_names(mesh=False, brokers=number)
    ports = {name: first_port + at for at, name in enumerate(names)}
    nodes = programs.broker_nodes(StackPaths.at(folder), ports)
    broker.prepare(nodes)
    return [_properties(broker.properties_file(node.folder)) for node in nodes]


def _properties(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def formatted(folder: Path, name: str) -> None:
    data = broker.data_dir(folder / name)
    data.mkdir(parents=True, exist_ok=True)
    (data / "meta.properties").touch()


def test_three_brokers_vote_and_replicate_everything_three_times(tmp_path: Path) -> None:
    three = prepared(tmp_path, 3)

    assert [each["node.id"] for each in three] == ["1", "2", "3"]
    [voters] = {each["controller.quorum.voters"] for each in three}
    controllers = [each["listeners"].split("CONTROLLER://")[1] for each in three]
    assert voters == ",".join(f"{at}@{where}" for at, where in enumerate(controllers, start=1))
    assert len({each["log.dirs"] for each in three}) == 3
    assert len({(tmp_path / name / "cluster-id").read_text() for name in broker.names(3)}) == 1
    for each in three:
        factors = {key: value for key, value in each.items() if "replication.factor" in key}
        assert set(factors.values()) == {"3"}
        least = {
            value for key, value in each.items() if key.endswith(("insync.replicas", "min.isr"))
        }
        assert least == {"2"}


def test_one_broker_has_no_voters_and_no_second_replica(tmp_path: Path) -> None:
    [one] = prepared(tmp_path, 1)

    assert "controller.quorum.voters" not in one
    assert {value for key, value in one.items() if "replication.factor" in key} == {"1"}
    assert not (tmp_path / "broker" / "cluster-id").exists()


def test_other_ports_change_the_voters_and_not_the_cluster(tmp_path: Path) -> None:
    before = prepared(tmp_path, 3), (tmp_path / "broker-3" / "cluster-id").read_text()

    moved = prepared(tmp_path, 3, first_port=25_000)

    assert moved[0]["controller.quorum.voters"] != before[0][0]["controller.quorum.voters"]
    assert (tmp_path / "broker-3" / "cluster-id").read_text() == before[1]


def test_clients_are_given_every_broker() -> None:
    names = programs.port_names(mesh=False, brokers=3)
    ports = {name: 20_000 + at for at, name in enumerate(names)}

    servers = programs.addresses(ports, secure=False).bootstrap_servers.split(",")

    assert servers == [f"127.0.0.1:{ports[name]}" for name in broker.names(3)]


@pytest.mark.parametrize(("kept", "wanted"), [(1, 3), (3, 1)])
def test_data_of_another_number_of_brokers_is_refused(
    tmp_path: Path, kept: int, wanted: int
) -> None:
    prepared(tmp_path, kept)
    formatted(tmp_path, "broker")

    with pytest.raises(LocalStackError, match=f"of a mesh with {kept} broker.*not {wanted}: "):
        EmbeddedStack(tmp_path).up(mesh=False, brokers=wanted)


def test_a_start_that_formatted_nothing_does_not_decide_the_number(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in broker.names(3)]
    prepared(tmp_path, 3)
    assert broker.number_kept(folders) is None
    # Then one broker is started in the same folder.
    prepared(tmp_path, 1)
    formatted(tmp_path, "broker")
    assert broker.number_kept(folders) == 1


def test_a_first_start_of_three_that_formatted_one_goes_on_as_three(tmp_path: Path) -> None:
    prepared(tmp_path, 3)
    formatted(tmp_path, "broker-2")
    assert broker.number_kept([tmp_path / name for name in broker.names(3)]) == 3
