"""kill -9, stops past every timeout, rolling restarts: nothing lost, nothing twice, in order."""

from __future__ import annotations

import signal

import pytest

from tests.faults.scenario import Scenario
from tests.mesh import PARTITIONS, SERVICES, Mesh
from tests.nightly import but_nightly

SESSION_AND_TRANSACTION_TIMEOUT_S = 6 + 10


@pytest.mark.parametrize("name", [*SERVICES, "worker"])
def test_kill(scenario: Scenario, mesh: Mesh, name: str) -> None:
    with scenario.strike():
        process = mesh.processes[name]
        process.kill()
        process.start()


@pytest.mark.parametrize("name", but_nightly(["intake", "enricher-topic", "joiner"], ["joiner"]))
def test_kill_between_produce_and_commit(scenario: Scenario, mesh: Mesh, name: str) -> None:
    with scenario.strike():
        mesh.script(delay_ms=60)
        mesh.processes[name].kill()
        dying = mesh.add(name, dies_in_transaction=scenario.random.randrange(1, 4))
        dying.start()
        scenario.publish_until_it_ends(dying)
        assert dying.wait() == -signal.SIGKILL
        scenario.assert_many_in_flight()
        mesh.add(name).start()


@pytest.mark.parametrize("name", but_nightly(["enricher-ner", "joiner"], ["joiner"]))
def test_stopped_past_its_timeouts_and_woken(scenario: Scenario, mesh: Mesh, name: str) -> None:
    with scenario.strike():
        sleeper = mesh.processes[name]
        sleeper.signal(signal.SIGSTOP)
        stand_in = mesh.add(name, slot="1")
        stand_in.start()
        # It owns partitions once the sleeper's session and its open transaction are over.
        owns_all = f'reviewmesh_assigned_partitions{{service="{name}"}} {PARTITIONS}.0'
        mesh.wait_for(
            lambda: owns_all in stand_in.get("/metrics")[1],
            SESSION_AND_TRANSACTION_TIMEOUT_S + 30,
            "the stand-in takes over",
        )
        sleeper.signal(signal.SIGCONT)
        mesh.wait_for(sleeper.is_ready, 60, "the sleeper is back")
        assert stand_in.terminate() == 0
        del mesh.processes[stand_in.name]


def test_scale_out_and_in(scenario: Scenario, mesh: Mesh) -> None:
    with scenario.strike():
        replicas = [
            mesh.add(name, slot=slot)
            for slot in ("1", "2")
            for name in ("intake", "enricher-sentiment", "joiner")
        ]
        for replica in replicas:
            replica.start()
        mesh.wait_ready()
        for replica in replicas:
            assert replica.terminate() == 0
            del mesh.processes[replica.name]


def test_rolling_restart_of_everything(scenario: Scenario, mesh: Mesh) -> None:
    with scenario.strike():
        for process in list(mesh.processes.values()):
            assert process.terminate() == 0
            process.start()
            mesh.wait_for(process.is_ready, 30, f"{process.name} is back")


def test_kill_the_broker(scenario: Scenario, mesh: Mesh) -> None:
    with scenario.strike():
        pid = mesh.stack.kill("broker")
        mesh.stack.wait_ready("broker", after_pid=pid)
