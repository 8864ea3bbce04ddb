"""A log that ends before what was read of it, told from one that was only looked at too early."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import create_autospec

import pytest
import structlog

from reviewmesh.kafka.logwatch import Log
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.ledger import CompletionLedger
from reviewmesh.loop.out_of_range import OutOfRangeOffsets
from reviewmesh.loop.poison import PoisonSearch
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Stage
from reviewmesh.loop.stalls import StallDetector
from reviewmesh_schemas.names import ACCEPTED

AT = MeshPartition(ACCEPTED, 3)


class Watched:
    """One input, read to an offset, and looks at its log."""

    def __init__(self) -> None:
        stage: Any = create_autospec(Stage, instance=True)
        stage.service = "enricher-ner"
        stage.waits_for.return_value = "nothing is to be healed here"
        self.ledger = CompletionLedger(0)
        inputs = Inputs()
        inputs.add([Input(ACCEPTED, 3, self.ledger, create_autospec(PoisonSearch, instance=True))])
        ends: Any = create_autospec(OutOfRangeOffsets, instance=True)
        log: Any = structlog.get_logger()
        self.stalls = StallDetector(stage, inputs, ends, Readiness(), log)
        self.now = time.monotonic()

    def read_to(self, offset: int) -> None:
        self.ledger.reached_end(offset)

    def check(self, end: int, asked_s_ago: float, monkeypatch: pytest.MonkeyPatch) -> set[int]:
        """Ten seconds after the last look."""
        self.now += 10
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        log = Log(0, end, end, self.now - asked_s_ago)
        return self.stalls.check({AT: log}, lambda partition: False)


def test_a_log_that_ends_before_what_was_read_is_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    watched.read_to(100)
    assert watched.check(100, 1, monkeypatch) == set()
    assert watched.check(90, 1, monkeypatch) == {3}


def test_what_was_read_since_the_broker_was_asked_is_no_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched()
    watched.read_to(100)
    assert watched.check(90, 1, monkeypatch) == set()
    # Asked before the last look was noted.
    assert watched.check(95, 30, monkeypatch) == set()
    assert watched.check(100, 1, monkeypatch) == set()
