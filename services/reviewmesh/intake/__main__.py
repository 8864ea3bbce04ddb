"""`python -m reviewmesh.intake`: builds intake from its settings and runs it."""

from __future__ import annotations

import sys

import structlog

from reviewmesh.intake.judged import Resets
from reviewmesh.intake.stage import ACCEPTED, RAW, Contract, IntakeStage
from reviewmesh.runtime.clock import wall_clock
from reviewmesh.runtime.contracts import Contracts
from reviewmesh.runtime.deadletter import DEAD_LETTER, DeadLetters
from reviewmesh.runtime.reader import PartitionReader
from reviewmesh.runtime.replays import REPLAYED
from reviewmesh.runtime.service import run
from reviewmesh.runtime.settings import Settings


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
