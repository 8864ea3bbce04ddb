"""The search for batches that cannot be taken, over logs of every kind of batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.kafka.batches import (
    ONE_BY_ONE,
    Impassable,
    ReadResult,
    find_end,
    find_impassable,
    find_passage,
)
from reviewmesh.kafka.record import Record

Kind = Literal["good", "refused", "deadly"]
BATCHES_AT_ONCE = {1024 * 1024: 64, 32 * 1024: 4, 1: 1}


@dataclass(frozen=True)
class Batch:
    kind: Kind
    first: int
    next: int


class Log:
    """What a client would do with these batches, one after the other from offset 0."""

    def __init__(self, layout: list[tuple[Kind, int]]) -> None:
        self.batches: list[Batch] = []
        at = 0
        for kind, count in layout:
            self.batches.append(Batch(kind, at, at + count))
            at += count
        self.end = at
        self.asked = 0

    def read(self, at: int, fetch_bytes: int, at_most: int) -> ReadResult:
        self.asked += 1
        reading = ReadResult(next=at)
        left = [batch for batch in self.batches if batch.next > at]
        size = BATCHES_AT_ONCE[fetch_bytes]
        for start in range(0, len(left), size):
            fetched = left[start : start + size]
            # All of one response is unpacked before any of it is given.
            kinds = [batch.kind for batch in fetched]
            until = kinds.index("refused") if "refused" in kinds else len(fetched)
            if "deadly" in kinds[:until]:
                reading.died = True
                return reading
            for batch in fetched[:until]:
                if at_most == 0:
                    return reading
                for offset in range(max(at, batch.first), batch.next):
                    reading.records.append(Record("raw", 0, offset, None, b"v"))
                    reading.next = offset + 1
            if until < len(fetched):
                reading.refused = fetched[until].first
                reading.error = "Decompression failed"
                return reading
        return reading


LAYOUTS = st.lists(
    st.tuples(
        st.sampled_from(["good", "good", "refused", "deadly"]),
        st.integers(min_value=1, max_value=40),
    ),
    max_size=12,
)


@given(st.integers(0, 1_000_000), st.integers(1, 1_000_000))
def test_the_end_is_found_exactly_in_few_steps(first: int, count: int) -> None:
    asked = []

    def is_within(offset: int) -> bool:
        asked.append(offset)
        return offset < first + count

    assert find_end(is_within, first) == first + count
    assert len(asked) <= 2 * count.bit_length() + ONE_BY_ONE


@given(LAYOUTS, st.data())
def test_a_batch_that_is_refused_is_found_to_its_end(
    layout: list[tuple[Kind, int]], data: st.DataObject
) -> None:
    log = Log(layout)
    at = data.draw(st.integers(0, log.end))
    found = find_impassable(log, at)
    here = next((batch for batch in log.batches if batch.first <= at < batch.next), None)
    if here is None or here.kind == "good":
        assert found is None
    elif here.kind == "refused":
        assert found is not None
        assert (found.offset, found.next) == (at, here.next)
    else:
        assert found is not None
        assert found.next >= here.next
        assert any(batch.next == found.next and batch.kind == "deadly" for batch in log.batches)


@given(LAYOUTS, st.data())
def test_a_passage_gives_every_good_record_or_names_it(
    layout: list[tuple[Kind, int]], data: st.DataObject
) -> None:
    """In order, without a gap; and what is behind it the client can take."""
    log = Log(layout)
    at = start = data.draw(st.integers(0, log.end))
    for item in find_passage(log, start, clock=lambda: 0.0):
        assert item.offset == at
        at = item.next if isinstance(item, Impassable) else item.offset + 1
    assert all(batch.kind == "good" for batch in log.batches if batch.next > at)
    assert at == start or any(batch.next == at and batch.kind != "good" for batch in log.batches)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, ONE_BY_ONE)), max_size=6))
def test_good_records_between_deadly_ones_come_out(runs: list[tuple[int, int]]) -> None:
    """Where deadly batches are of one record, and few side by side, no other is passed over."""
    layout: list[tuple[Kind, int]] = []
    for good, deadly in runs:
        layout.append(("good", good))
        layout += [("deadly", 1)] * deadly
    log = Log(layout)
    passed = [
        offset
        for item in find_passage(log, 0, lambda: 0.0)
        if isinstance(item, Impassable)
        for offset in range(item.offset, item.next)
    ]
    assert passed == [batch.first for batch in log.batches if batch.kind == "deadly"]


def test_enough_is_enough() -> None:
    """What was found until then is gone past; the next life finds the rest."""
    log = Log([("deadly", 1), ("good", 1)] * 100)
    times = iter(range(0, 10_000, 10))
    [found] = find_passage(log, 0, lambda: float(next(times)))
    assert isinstance(found, Impassable)
