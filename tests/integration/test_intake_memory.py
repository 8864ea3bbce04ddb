"""Intake's memory is rebuilt from what it has accepted, read from the broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from reviewmesh.avro.contracts import Contracts
from reviewmesh.intake.__main__ import build
from reviewmesh.intake.stage import IntakeStage
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import REPLAY, Headers, Output, Record, Unavailable
from reviewmesh.loop.inputs import Inputs
from reviewmesh.loop.stage import Start
from reviewmesh.process import logs
from reviewmesh.settings import IntakeSettings, KafkaSettings, RegistrySettings, Settings
from reviewmesh_schemas.names import ACCEPTED, RAW
from tests.broker import TestStack, wait_until
from tests.mesh import PARTITIONS, Mesh, review

PARTITION = 2
IDS = [
    name
    for name in (f"r-{number}" for number in range(200))
    if partition_of(name.encode(), PARTITIONS) == PARTITION
]


@dataclass
class Intake:
    """The stage itself over the real topics, without the loop; what it accepts is committed."""

    mesh: Mesh
    settings: Settings
    offset: int = 0
    stage: IntakeStage = field(init=False)

    def __post_init__(self) -> None:
        self.kafka = Producer({**self.mesh.kafka, "transactional.id": self.mesh.prefix})
        self.kafka.init_transactions(30)
        self.restart()

    def restart(self) -> None:
        """As on an assignment: all that it knew is gone."""
        log = logs.configure(self.settings.log, "intake")
        self.stage = build(self.settings, Contracts(self.settings), log)
        wait_until(self._opens, 30, "the partition can be read")

    def _opens(self) -> bool:
        """The loop, too, tries again: a topic made a moment ago may be without a leader."""
        try:
            starts = {RAW: Start(RAW, self.offset, reset=False)}
            self.stage.open(PARTITION, Inputs(), self.stage.load(PARTITION, starts))
        except Unavailable:
            return False
        return True

    def take(self, review_id: str, text: str, headers: Headers = ()) -> list[int]:
        """The acceptances that come of it: none when it is a duplicate."""
        value = self.mesh.codec(RAW).encode(review(review_id, text))
        key = review_id.encode()
        self.stage.receive(Record(RAW, PARTITION, self.offset, key, value, headers))
        self.offset += 1
        outputs = [output for unit in self.stage.poll() for output in unit.outputs]
        self._commit(outputs)
        codec = self.mesh.codec(ACCEPTED)
        return [codec.decode(output.value or b"")["acceptance"] for output in outputs]

    def _commit(self, outputs: Sequence[Output]) -> None:
        self.kafka.begin_transaction()
        for output in outputs:
            self.kafka.produce(
                self.mesh.prefix + output.topic, output.value, output.key, output.partition
            )
        self.kafka.commit_transaction(30)


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path) -> Mesh:
    mesh = Mesh(stack, prefix, tmp_path)
    mesh.apply_topics()
    return mesh


def intake(mesh: Mesh, **values: Any) -> Intake:
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=mesh.stack.bootstrap_servers),
        registry=RegistrySettings(url=mesh.stack.registry_url),
        intake=IntakeSettings(**values),
        prefix=mesh.prefix,
    )
    return Intake(mesh, settings)


def test_a_duplicate_is_known_after_a_restart(mesh: Mesh) -> None:
    taken = intake(mesh)
    assert taken.take(IDS[0], "A") == [1]
    assert taken.take(IDS[0], "A") == []
    taken.restart()
    assert taken.take(IDS[0], "A") == []
    assert taken.take(IDS[1], "A") == [1]


def test_an_edit_taken_back_is_accepted_again_across_restarts(mesh: Mesh) -> None:
    taken = intake(mesh)
    for text, acceptance in (("A", [1]), ("B", [1]), ("A", [2]), ("A", []), ("B", [2])):
        assert taken.take(IDS[0], text) == acceptance
        taken.restart()


def test_a_replay_goes_past_the_memory_and_is_counted(mesh: Mesh) -> None:
    taken = intake(mesh)
    assert taken.take(IDS[0], "A") == [1]
    taken.restart()
    assert taken.take(IDS[0], "A", ((REPLAY, b"1"),)) == [2]
    assert taken.take(IDS[0], "A") == []


def test_only_the_last_ids_are_remembered(mesh: Mesh) -> None:
    taken = intake(mesh, dedupe_ids=3)
    for review_id in IDS[:5]:
        assert taken.take(review_id, "A") == [1]
    for _ in range(2):
        assert taken.take(IDS[4], "A") == []
        taken.restart()
    assert taken.take(IDS[0], "A") == [1]


def test_what_was_accepted_before_the_window_is_forgotten(mesh: Mesh) -> None:
    taken = intake(mesh, dedupe_window_s=0.001)
    assert taken.take(IDS[0], "A") == [1]
    taken.restart()
    assert taken.take(IDS[0], "A") == [1]


def test_an_aborted_acceptance_is_not_remembered(mesh: Mesh) -> None:
    taken = intake(mesh)
    value = mesh.codec(RAW).encode(review(IDS[0], "A"))
    taken.stage.receive(Record(RAW, PARTITION, 0, IDS[0].encode(), value))
    taken.kafka.begin_transaction()
    for unit in taken.stage.poll():
        for output in unit.outputs:
            name = mesh.prefix + output.topic
            taken.kafka.produce(name, output.value, output.key, output.partition)
    taken.kafka.flush(10)
    taken.kafka.abort_transaction(30)
    taken.restart()
    assert taken.take(IDS[0], "A") == [1]
