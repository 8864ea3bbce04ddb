"""A burst that fills a worker and ends: it is never idle while anything waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inference import Driver, ScriptedWorker

CLIENTS = 3
ITEMS_EACH = 250
IDLE_AT_MOST_S = 1.0
# Each batch of 32 takes the engine so long: calls wait seconds for their turn.
BATCH_MS = 250
DONE_WITHIN_S = 60
REFUSALS_AT_MOST = CLIENTS * ITEMS_EACH // 10


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker(tmp_path / "worker", max_in_flight=256)
    worker.script(delay_ms=BATCH_MS)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def drivers(worker: ScriptedWorker) -> Iterator[list[Driver]]:
    drivers = [Driver([worker.address]) for _ in range(CLIENTS)]
    yield drivers
    for driver in drivers:
        driver.client.close()


def longest_idle_s(worker: ScriptedWorker, drivers: list[Driver]) -> float:
    """Until all is answered: the longest that the worker had nothing."""
    longest, busy_at = 0.0, time.monotonic()
    deadline = busy_at + DONE_WITHIN_S
    while any(driver.finished() < driver.submitted for driver in drivers):
        now = time.monotonic()
        assert now < deadline, f"not all answered after {DONE_WITHIN_S} s"
        if worker.in_flight():
            busy_at = now
        longest = max(longest, now - busy_at)
        time.sleep(0.02)
    return longest


def test_a_worker_is_never_idle_beside_waiting_work(
    worker: ScriptedWorker, drivers: list[Driver]
) -> None:
    for number, driver in enumerate(drivers):
        driver.submit([f"client {number}, item {item}" for item in range(ITEMS_EACH)])
    idle = longest_idle_s(worker, drivers)
    refused = worker.refused("RESOURCE_EXHAUSTED")
    print(f"idle {idle:.2f} s, {refused:.0f} refusals")
    assert idle <= IDLE_AT_MOST_S
    assert refused <= REFUSALS_AT_MOST
    assert all(answer.attempts == 1 for driver in drivers for answer in driver.wait())
