"""A broker of three is lost, hangs, is cut off or restarted: nothing lost, nothing twice, in order.

Brokers and mesh are started once for the module; a scenario leaves all three in sync.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.clock import clock_off, compile_clock
from tests.cluster import BROKERS, Cluster, running_cluster
from tests.faults.scenario import FLOWS_AGAIN_WITHIN_S, Scenario
from tests.mesh import PARTITIONS, SERVICES, Mesh, Process
from tests.nightly import but_nightly

# Longer than a session, a transaction and a request of a client last.
CUT_OFF_S = 25
NOTHING_FOR_S = 5
CLOCK_OFF_S = 420
LAG_SECONDS = "kafka_consumergroup_group_lag_seconds"
BACKLOG = "reviewmesh_backlog_records"
ASSIGNED = "reviewmesh_assigned_partitions"
SHARED_WITHIN_S = 20
# Up to twenty processes beside three brokers.
ALL_STARTED_WITHIN_S = 600


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def mesh(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("three")
    with Mesh(cluster.stack, "three.", folder) as mesh:
        mesh.start(ALL_STARTED_WITHIN_S)
        yield mesh


@pytest.fixture
def scenario(
    cluster: Cluster, mesh: Mesh, request: pytest.FixtureRequest, seed: int
) -> Iterator[Scenario]:
    yield Scenario(mesh, request.node.name, seed)
    cluster.wait_in_sync()
    cluster.move_leaders_back()


def group(mesh: Mesh, service: str) -> str:
    return f"{mesh.prefix}reviewmesh-{service}"


def flows_on(scenario: Scenario) -> None:
    """Output goes on while the fault lasts, or all of it is out by now."""
    before, struck = len(scenario.enriched()), time.monotonic()
    if before < len(scenario.published):
        scenario.mesh.wait_for(
            lambda: len(scenario.enriched()) > before, FLOWS_AGAIN_WITHIN_S, "output goes on"
        )
    print(f"output went on after {time.monotonic() - struck:.1f} s")


def test_the_leader_of_a_partition_is_killed(scenario: Scenario, cluster: Cluster) -> None:
    partition = scenario.random.randrange(PARTITIONS)
    with scenario.strike():
        cluster.kill(cluster.leader(f"{scenario.mesh.prefix}reviews.accepted", partition))


@pytest.mark.nightly
def test_the_leader_of_a_partition_hangs(scenario: Scenario, cluster: Cluster) -> None:
    """The others lead in its place; when it wakes it believes for a moment that it still does."""
    partition = scenario.random.randrange(PARTITIONS)
    with (
        scenario.strike(),
        cluster.hanging(cluster.leader(f"{scenario.mesh.prefix}reviews.raw", partition)),
    ):
        flows_on(scenario)


@pytest.mark.nightly
def test_two_brokers_are_killed_and_come_back(scenario: Scenario, cluster: Cluster) -> None:
    """With one left nothing is acknowledged, so nothing comes out; then everything does."""
    left = scenario.random.choice(BROKERS)
    gone = [name for name in BROKERS if name != left]
    with scenario.strike():
        for name in gone:
            cluster.kill_and_keep_away(name)
        topic = f"{scenario.mesh.prefix}reviews.enriched"
        own = [number for number in range(PARTITIONS) if cluster.leader(topic, number) == left]
        assert own, "expected a partition that the broker that is left leads"
        ends = committed_ends(scenario.mesh, topic, own)
        time.sleep(NOTHING_FOR_S)
        assert committed_ends(scenario.mesh, topic, own) == ends
        for name in gone:
            cluster.stack.start(name)


def committed_ends(mesh: Mesh, topic: str, partitions: list[int]) -> list[int]:
    """Up to where the records of these partitions may be read."""
    consumer = Consumer({**mesh.kafka, "group.id": f"{mesh.prefix}ends", "log_level": 0})
    try:
        return [
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
            for number in partitions
        ]
    finally:
        consumer.close()


@pytest.mark.nightly
def test_a_rolling_restart_of_all_brokers(scenario: Scenario, cluster: Cluster) -> None:
    """As an operator does it: the next one only when the one before has caught up."""
    with scenario.strike():
        for name in scenario.random.sample(BROKERS, len(BROKERS)):
            cluster.stack.stop(name)
            cluster.stack.start(name)
            cluster.wait_in_sync()


@pytest.mark.nightly
@pytest.mark.parametrize("service", ["joiner", "enricher-ner", "intake"])
def test_the_coordinator_of_a_group_is_killed_and_moved_back(
    scenario: Scenario, cluster: Cluster, service: str
) -> None:
    with scenario.strike():
        name = cluster.coordinator_of_group(group(scenario.mesh, service))
        cluster.kill(name)
        flows_on(scenario)
        cluster.wait_in_sync()
        cluster.move_leaders_back()


@pytest.mark.parametrize("service", but_nightly(["joiner", "enricher-ner", "intake"], ["intake"]))
def test_the_coordinator_of_transactions_is_killed_and_moved_back(
    scenario: Scenario, cluster: Cluster, service: str
) -> None:
    with scenario.strike():
        name = cluster.coordinator_of_transactions(f"{group(scenario.mesh, service)}-0")
        cluster.kill(name)
        flows_on(scenario)
        cluster.wait_in_sync()
        cluster.move_leaders_back()


@pytest.fixture
def proxied(cluster: Cluster, mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[str]:
    """A service that reaches each broker through a proxy."""
    name = request.param
    servers = {"REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": cluster.proxied_servers}
    direct = mesh.processes[name]
    direct.terminate()
    mesh.add(name).environment.update(servers)
    mesh.processes[name].start()
    mesh.wait_ready(ALL_STARTED_WITHIN_S)
    yield name
    mesh.processes[name].terminate()
    mesh.add(name).start()
    mesh.wait_ready(ALL_STARTED_WITHIN_S)


@pytest.mark.nightly
@pytest.mark.parametrize("proxied", ["joiner", "enricher-ner", "intake"], indirect=True)
def test_a_service_is_cut_off_from_one_broker(
    scenario: Scenario, cluster: Cluster, proxied: str
) -> None:
    """From the coordinator of its group, of its transactions, or from neither."""
    cut = scenario.random.choice(BROKERS)
    service = group(scenario.mesh, proxied)
    role = {
        "group": cluster.coordinator_of_group(service) == cut,
        "transactions": cluster.coordinator_of_transactions(f"{service}-0") == cut,
    }
    print(f"{proxied} is cut off from {cut}, the coordinator of {role}")
    process = scenario.mesh.processes[proxied]
    with scenario.strike(), cluster.proxies[cut].cut():
        time.sleep(CUT_OFF_S)
    assert process.popen is not None and process.popen.poll() is None, "it ended by itself"


@pytest.mark.nightly
@pytest.mark.parametrize("proxied", ["joiner"], indirect=True)
def test_a_stand_in_takes_over_from_a_service_without_its_coordinator(
    scenario: Scenario, cluster: Cluster, proxied: str
) -> None:
    mesh = scenario.mesh
    cut = cluster.coordinator_of_group(group(mesh, proxied))
    with scenario.strike():
        with cluster.proxies[cut].cut():
            stand_in = mesh.add(proxied, slot="1")
            stand_in.start()
            owns_all = f'reviewmesh_assigned_partitions{{service="{proxied}"}} {PARTITIONS}.0'
            mesh.wait_for(
                lambda: owns_all in stand_in.get("/metrics")[1], 60, "the stand-in takes over"
            )
            flows_on(scenario)
        mesh.wait_for(mesh.processes[proxied].is_ready, 60, "the one that was cut off is back")
        assert stand_in.terminate() == 0
        del mesh.processes[stand_in.name]


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_clock(tmp_path_factory.mktemp("clock"))


@pytest.mark.nightly
@pytest.mark.parametrize("off_s", [-CLOCK_OFF_S, CLOCK_OFF_S], ids=["behind", "ahead"])
def test_the_clock_of_a_broker_is_minutes_off(
    scenario: Scenario, cluster: Cluster, clock: Path, tmp_path: Path, off_s: float
) -> None:
    """Its timestamps jump as leaders change; nobody takes a review for older or younger than it is.

    The transactions that it coordinates from then on look as if they had begun minutes ago, or
    minutes from now.
    """
    mesh, wrong = scenario.mesh, scenario.random.choice(BROKERS)
    lag = mesh.add("lag")
    lag.start()
    mesh.wait_ready(ALL_STARTED_WITHIN_S)
    topic = f"{mesh.prefix}reviews.accepted"
    with scenario.strike(), clock_off(cluster, wrong, off_s, clock, tmp_path / "broker.log"):
        cluster.wait_in_sync()
        cluster.move_leaders_back()
        led = [at for at in range(PARTITIONS) if cluster.leader(topic, at) == wrong]
        assert led, "expected a partition that it leads"
        mesh.script(delay_ms=400)
        began = time.monotonic()
        scenario.publish_more(400, "late")
        waits: dict[str, float] = {}

        def is_measured() -> bool:
            waits.update(waiting(lag, mesh, led))
            return bool(waits) and min(waits.values()) > 1

        mesh.wait_for(is_measured, 60, "the age of what waits there is measured")
        assert max(waits.values()) < time.monotonic() - began + CLOCK_OFF_S / 2
        flows_on(scenario)
    assert lag.terminate() == 0
    del mesh.processes["lag"]


def waiting(lag: Process, mesh: Mesh, partitions: list[int]) -> dict[str, float]:
    """How long the joiner's oldest review has waited, of these partitions with a backlog."""
    lines = lag.get("/metrics")[1].splitlines()
    labels = [
        f'{{group="{group(mesh, "joiner")}",partition="{number}",'
        f'topic="{mesh.prefix}reviews.accepted"}}'
        for number in partitions
    ]
    found = {name: value for name, _, value in (line.rpartition(" ") for line in lines)}
    return {
        label: float(found[LAG_SECONDS + label])
        for label in labels
        if float(found.get(BACKLOG + label, 0)) > 0 and LAG_SECONDS + label in found
    }


@pytest.mark.nightly
def test_new_replicas_share_the_work(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    """Twelve partitions, two workers a task; of two replicas of each service three are made."""
    with Mesh(
        cluster.stack,
        f"scaled{seed}.",
        tmp_path,
        workers_per_task=True,
        workers_each=2,
        partitions=12,
    ) as mesh:
        mesh.start(ALL_STARTED_WITHIN_S)
        for name in SERVICES:
            mesh.add(name, slot="1").start()
        mesh.wait_ready(ALL_STARTED_WITHIN_S)
        scenario = Scenario(mesh, "scaled", seed)
        with scenario.strike():
            added = [mesh.add(name, slot="2") for name in SERVICES]
            for process in added:
                process.start()
            for process in added:
                mesh.wait_for(partial(listens, process), ALL_STARTED_WITHIN_S, "it has started")
            mesh.wait_for(
                lambda: {process.metric(ASSIGNED) for process in added} == {4.0},
                SHARED_WITHIN_S,
                "each new replica has a third of the partitions",
            )


def listens(process: Process) -> bool:
    return process.get("/healthz")[0] == 200
