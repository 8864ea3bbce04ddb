"""What is read while somebody looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from reviewmesh.console import kept
from reviewmesh.console.kept import KeptReading
from reviewmesh.query.errors import CannotReach
from tests.unit.console.page import LOG


def test_many_who_look_share_one_reading() -> None:
    read: list[int] = []
    values = KeptReading(lambda: read.append(1) or len(read), LOG)  # type: ignore[func-returns-value]
    assert {values.reading().value for _ in range(20)} == {1}
    assert len(read) == 1


def test_the_last_values_stay_and_the_problem_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "EVERY_S", 0.0)
    answers: Iterator[str | CannotReach] = iter(
        ["known", CannotReach("the broker is away"), "back"]
    )

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, CannotReach):
            raise answer
        return answer

    values: KeptReading[str] = KeptReading(read, LOG)
    first = values.reading()
    assert (first.value, first.is_old(time.time())) == ("known", False)
    away = values.reading()
    assert (away.value, away.problem, away.read_at) == (
        "known",
        "the broker is away",
        first.read_at,
    )
    assert away.is_old(time.time())
    assert values.reading().problem == ""


def test_who_looks_waits_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FIRST_WAIT_S", 0.05)
    go_on = threading.Event()

    def read() -> str:
        assert go_on.wait(30)
        return "read"

    values: KeptReading[str] = KeptReading(read, LOG)
    assert values.reading().value is None
    go_on.set()
    monkeypatch.setattr(kept, "FIRST_WAIT_S", 30.0)
    assert values.reading().value == "read"
