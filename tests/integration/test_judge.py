"""What the judge writes, on a real broker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaException

from reviewmesh.avro import topics
from reviewmesh.avro.contracts import Contracts
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.enrich.rollouts import ABORTED, SHADOW
from reviewmesh.judge.control_topic import ControlTopic
from reviewmesh.judge.rollout import ABORT, START, RolloutRecord
from reviewmesh.judge.session import Session
from reviewmesh.query.connection import Connection, connection_of
from reviewmesh.query.rollouts import rollouts, write_command
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import CONTROL
from tests.broker import TestStack, wait_until

TASK = "topic"
SOON_S = 60


@pytest.fixture
def connection(stack: TestStack, prefix: str) -> Connection:
    kafka = {"bootstrap.servers": stack.bootstrap_servers}
    topics.apply(kafka, SchemaRegistry(stack.registry_url), prefix, 24 * 3600)
    settings: dict[str, Any] = {
        "kafka": {"bootstrap_servers": stack.bootstrap_servers},
        "registry": {"url": stack.registry_url},
        "candidates": {TASK: "127.0.0.1:1"},
        "prefix": prefix,
    }
    return connection_of(Settings(**settings))


def control(connection: Connection) -> ControlTopic:
    contracts = Contracts(connection.settings)
    return ControlTopic(
        connection.settings, contracts.codec(CONTROL), contracts.partitions(CONTROL)
    )


def session(connection: Connection) -> Session:
    return Session(connection.settings, Contracts(connection.settings), structlog.get_logger())


def test_a_second_judge_fences_the_first(connection: Connection) -> None:
    first = control(connection)
    first.write(RolloutRecord(TASK, epoch=1))
    second = control(connection)
    with pytest.raises(KafkaException):
        first.write(RolloutRecord(TASK, epoch=2))
    second.write(RolloutRecord(TASK, epoch=3))
    assert rollouts(connection)[TASK].epoch == 3


def test_a_command_is_answered_once_whoever_judges(connection: Connection) -> None:
    judge = session(connection)
    started = write_command(connection, TASK, START, epoch=0)

    def record() -> RolloutRecord:
        judge.run_once()
        return rollouts(connection)[TASK]

    wait_until(lambda: record().last_command == started, SOON_S, "it is carried out")
    assert record().state == SHADOW
    rollout = record().rollout
    stale = write_command(connection, TASK, ABORT, epoch=0)
    wait_until(lambda: record().last_command == stale, SOON_S, "it is refused")
    assert "is at epoch 1 (shadow)" in (record().refusal or "")
    judge.close()

    judge = session(connection)
    aborted = write_command(connection, TASK, ABORT, epoch=1)
    wait_until(lambda: record().last_command == aborted, SOON_S, "the next judge answers it")
    found = record()
    judge.close()
    assert (found.state, found.rollout, found.epoch) == (ABORTED, rollout, 2)
    assert replace(found, refusal=None) == found
