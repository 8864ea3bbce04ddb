"""The search for the highest rate that holds, and the file that it is written into."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.capacity.arrivals import parse_arrivals
from reviewmesh.capacity.file import (
    CapacityFile,
    WorkerCapacity,
    parse_capacity,
    read_capacity,
    write_capacity,
)
from reviewmesh.capacity.search import CONFIRMED_BEYOND, PRECISION, STEP_DOWN, highest_rate
from reviewmesh.leaving.yamlfile import FileProblem

ENTRY = WorkerCapacity(
    task="topic", device="H200", objective_s=1, reviews_per_s=48, p50_s=0.1, p95_s=0.9
)


def always() -> bool:
    return True


@given(st.floats(0.2, 5_000), st.floats(0.2, 5_000))
def test_the_rate_is_found_from_anywhere(limit: float, first: float) -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = highest_rate(first, holds, holds, always, lowest=0.01)
    assert limit / PRECISION <= found <= limit
    assert tried[-1] == found
    # Nothing is tried twice, but for what is confirmed.
    assert len(set(tried[:-1])) == len(tried) - 1


def test_what_held_by_luck_is_not_confirmed() -> None:
    found = highest_rate(10, lambda r: r < 100, lambda r: r < 80, always, lowest=1)
    assert 80 * STEP_DOWN <= found < 80


def test_what_never_holds_ends() -> None:
    tried: list[float] = []

    def never(rate: float) -> bool:
        tried.append(rate)
        return False

    assert highest_rate(64, never, never, always, lowest=1) == 0
    assert tried == [64, 32, 16, 8, 4, 2, 1]


def test_without_time_nothing_is_tried() -> None:
    assert highest_rate(64, never_asked, never_asked, lambda: False, lowest=1) == 0


def test_what_held_is_confirmed_a_few_times_though_the_time_is_over() -> None:
    def confirmed_from(limit: float) -> tuple[float, list[float]]:
        left, tried = iter([True]), []

        def confirms(rate: float) -> bool:
            tried.append(rate)
            return rate < limit

        found = highest_rate(64, lambda rate: True, confirms, lambda: next(left, False), lowest=1)
        return found, tried

    assert confirmed_from(100) == (64, [64])
    found, tried = confirmed_from(60)
    assert found == tried[-1] == pytest.approx(64 * STEP_DOWN)
    found, tried = confirmed_from(1)
    assert found == 0 and len(tried) == CONFIRMED_BEYOND


def never_asked(rate: float) -> bool:
    raise AssertionError(rate)


def test_an_entry_replaces_that_of_the_same_task_and_device(tmp_path: Path) -> None:
    path = tmp_path / "capacity.yaml"
    other = ENTRY.model_copy(update={"device": "4 cores"})
    newer = ENTRY.model_copy(update={"reviews_per_s": 60.0, "start_s": 42.0})
    write_capacity(path, CapacityFile().replacing(ENTRY).replacing(other).replacing(newer))
    assert read_capacity(path).workers == [other, newer]
    assert [file.name for file in tmp_path.iterdir()] == ["capacity.yaml"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: expected"),
        ("version: 2\nworkers: []\n", "1: version"),
        ("workers:\n- {task: topic}\n", "2: workers.0.device: expected it, got nothing"),
        (
            "workers:\n- {task: topic, device: a, objective_s: 1, reviews_per_s: 0, p50_s: 0, "
            "p95_s: 0}\n",
            "2: workers.0.reviews_per_s",
        ),
        ("workers:\n- {rate: 3}\n", "workers.0.rate: there is no such setting"),
        (
            2 * "workers: []\n",
            "2: workers is given twice",
        ),
    ],
)
def test_a_wrong_file_is_told_by_its_line(text: str, expected: str) -> None:
    with pytest.raises(FileProblem) as told:
        parse_capacity(text)
    assert expected in str(told.value)


def test_two_entries_of_one_task_and_device_are_refused() -> None:
    entry = "- {task: topic, device: a, objective_s: 1, reviews_per_s: 1, p50_s: 0, p95_s: 0}\n"
    with pytest.raises(FileProblem, match="3: topic on a is there twice"):
        parse_capacity("workers:\n" + 2 * entry)


def test_arrivals_are_a_count_a_line() -> None:
    assert parse_arrivals("# a day\n1\n\n 2.5 \n0\n") == [1, 2.5, 0]
    for wrong in ("1\nmany\n", "1\n-3\n", "1\nnan\n", "1\n1,000\n"):
        with pytest.raises(FileProblem, match="2: expected a count"):
            parse_arrivals(wrong)
    with pytest.raises(FileProblem, match="got nothing"):
        parse_arrivals("# none\n")
