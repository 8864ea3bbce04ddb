"""Records that waited for their schema are worked off in turns."""

from __future__ import annotations

import time
from typing import cast

import pytest

from reviewmesh.avro.codec import Codec
from reviewmesh.intake.lookups import Lookups
from reviewmesh.kafka.record import Record
from reviewmesh_schemas.names import RAW
from tests.broker import wait_until
from tests.scripted_kafka import Clock


class OneSchema:
    """A codec that has to ask once."""

    known = False

    def schema_id_of(self, data: bytes) -> int:
        return 7

    def knows(self, schema_id: int) -> bool:
        return self.known

    def look_up(self, schema_id: int) -> None:
        self.known = True


def test_records_that_take_long_are_not_worked_off_in_one_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    codec = OneSchema()
    lookups = Lookups(cast(Codec, codec))
    judged: list[int] = []

    def judge(record: Record) -> None:
        judged.append(record.offset)
        clock.advance(1.5)

    for offset in range(20):
        assert lookups.keeps(Record(RAW, 0, offset, b"k", b"v"))
    wait_until(lambda: codec.known, 10, "the schema is known")
    monkeypatch.setattr(time, "monotonic", clock)
    turns = 0
    while lookups.waits_for(0):
        began = clock.now
        lookups.work_off(judge)
        assert clock.now - began < 5
        turns += 1
    assert judged == list(range(20))
    assert turns == 20
    lookups.stop()
