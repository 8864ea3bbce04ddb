"""Transactional calls that do not return in time are left behind, with their producer."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from reviewmesh.kafka import transactions
from reviewmesh.kafka.transactions import OutcomeUnknown, StuckProducers, TransactionalProducer
from tests.broker import wait_until

WITHIN_S = 10


class HangingProducer:
    """Its `begin_transaction` returns when `let_go` is set."""

    def __init__(self, let_go: threading.Event) -> None:
        self._let_go = let_go

    def init_transactions(self, timeout: float) -> None:
        pass

    def begin_transaction(self) -> None:
        self._let_go.wait()

    def send_offsets_to_transaction(self, *arguments: object) -> None:
        pass

    def commit_transaction(self, timeout: float) -> None:
        pass


class Hangs:
    """Makes producers that hang."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.made: list[weakref.ref[HangingProducer]] = []

    def make(self, *_: object) -> HangingProducer:
        producer = HangingProducer(self.let_go)
        self.made.append(weakref.ref(producer))
        return producer


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hangs]:
    hangs = Hangs()
    monkeypatch.setattr(transactions, "make_producer", hangs.make)
    monkeypatch.setattr(transactions, "CALL_DEADLINE_S", 0.1)
    yield hangs
    hangs.let_go.set()


def _transactional() -> TransactionalProducer:
    def on_error(error: Any) -> None:
        raise AssertionError(error)

    return TransactionalProducer({}, "", on_error)


def _hang(producer: TransactionalProducer) -> None:
    producer.connect()
    producer.commit([], [], None)


def _threads() -> int:
    return sum(thread.name == "transactions" for thread in threading.enumerate())


def test_calls_that_return_late_are_not_counted_and_leave_nothing_behind(hangs: Hangs) -> None:
    producer, before = _transactional(), _threads()
    for _ in range(2 * transactions.ABANDONED_AT_MOST):
        hangs.let_go.clear()
        with pytest.raises(OutcomeUnknown):
            _hang(producer)
        hangs.let_go.set()
        wait_until(lambda: _threads() == before, WITHIN_S, "the thread that was left behind ends")
    gc.collect()
    assert [made() for made in hangs.made] == [None] * len(hangs.made)


def test_a_process_with_many_calls_that_never_return_ends_without_another_one(
    hangs: Hangs,
) -> None:
    producer = _transactional()
    for _ in range(transactions.ABANDONED_AT_MOST):
        with pytest.raises(OutcomeUnknown):
            _hang(producer)
    with pytest.raises(StuckProducers, match="6 transactional calls"):
        _hang(producer)
    # The stage ends in order, which would make one more call of the producer that hangs.
    assert not producer.ready
