"""`python -m reviewmesh.intake`: builds intake from its settings and runs it."""

from __future__ import annotations

import sys

import structlog

from reviewmesh.intake.stage import ACCEPTED, RAW, IntakeStage
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
        contracts.partitions(RAW),
        contracts.max_bytes(ACCEPTED),
        settings.intake.dedupe_window_s,
        settings.intake.dedupe_ids,
        settings.intake.drop_attributes,
    )


if __name__ == "__main__":
    sys.exit(run("intake", build))
