"""Two loads of one partition at once: one was left behind when its group was joined again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import structlog

from reviewmesh.intake.judged import IntakeResets
from reviewmesh.join.resets import JoinerResets
from reviewmesh.kafka.record import Record
from reviewmesh.loop.stage import Start
from reviewmesh_schemas.names import ACCEPTED, RAW, TASK_OF

PARTITION = 2


class Reader:
    """While the first load reads, the second one comes and ends."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Any] | None = None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, 5

    def offset_at(self, topic: str, partition: int, since_ms: int) -> int:
        return 0

    def first_from(self, topic: str, partition: int, start: int) -> Record:
        return Record(topic, partition, start, b"a", b"", (), 1)

    def read_from(self, topic: str, partition: int, start: int) -> Iterator[Record]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return iter(())


def test_intake_s_loads_do_not_disturb_each_other() -> None:
    reader: Any = Reader()
    codec: Any = None
    resets = IntakeResets(reader, codec, codec, 6, structlog.get_logger())

    def load() -> object:
        return resets.mend(PARTITION, {RAW: Start(RAW, 0)})

    reader.meanwhile = load
    assert load() is not None
    assert reader.meanwhile is None


def test_the_joiner_s_loads_do_not_disturb_each_other() -> None:
    reader: Any = Reader()
    codec: Any = None
    resets = JoinerResets(reader, codec, structlog.get_logger())

    def load() -> object:
        starts = {topic: Start(topic, 0, reset=topic == ACCEPTED) for topic in (ACCEPTED, *TASK_OF)}
        return resets.mend(PARTITION, starts)

    reader.meanwhile = load
    assert load() is not None
    assert reader.meanwhile is None
