"""`python -m reviewmesh.intake`: builds intake from its settings and runs it."""

from __future__ import annotations

import sys

import structlog

from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.intake.judged import Resets
from reviewmesh.intake.stage import Contract, IntakeStage
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.process.service import run
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW, REPLAYED


def build(
    settings: Settings, contracts: Contracts, log: structlog.stdlib.BoundLogger
) -> IntakeStage:
    reader = PartitionReader(settings)
    accepted, letters = contracts.codec(ACCEPTED), contracts.codec(DEAD_LETTER)
    partitions = contracts.partitions(RAW)
    return IntakeStage(
        contracts.codec(RAW),
        accepted,
        contracts.codec(REPLAYED),
        DeadLetters(letters, wall_clock),
        Resets(reader, accepted, letters, partitions, log),
        reader,
        wall_clock,
        Contract(partitions, contracts.max_bytes(RAW), contracts.max_bytes(ACCEPTED)),
        settings.intake,
        log,
    )


if __name__ == "__main__":
    sys.exit(run("intake", build))
