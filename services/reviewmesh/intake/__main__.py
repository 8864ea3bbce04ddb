"""`python -m reviewmesh.intake`: builds intake from its settings and runs it."""

from __future__ import annotations

import sys

import structlog

from reviewmesh.intake.stage import ACCEPTED, RAW, Contract, IntakeStage
from reviewmesh.runtime.clock import wall_clock
from reviewmesh.runtime.contracts import Contracts
from reviewmesh.runtime.deadletter import DEAD_LETTER, DeadLetters
from reviewmesh.runtime.reader import PartitionReader
from reviewmesh.runtime.service import run
from reviewmesh.runtime.settings import Settings


def build(
    settings: Settings, contracts: Contracts, log: structlog.stdlib.BoundLogger
) -> IntakeStage:
    return IntakeStage(
        contracts.codec(RAW),
        contracts.codec(ACCEPTED),
        DeadLetters(contracts.codec(DEAD_LETTER), wall_clock),
        PartitionReader(settings),
        wall_clock,
        Contract(
            contracts.partitions(ACCEPTED),
            contracts.max_bytes(RAW),
            contracts.max_bytes(ACCEPTED),
        ),
        settings.intake,
        log,
    )


if __name__ == "__main__":
    sys.exit(run("intake", build))
