"""The lag service's seconds against the true age of the oldest review that is not out.

Truth is taken on both sides of a scrape: a review that is not out after it was not out at it, and
one that was out PRECISION_S before it must not count any more. On a machine so busy that the last
measurement is older than that, as it says itself, the truth is that of its time.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reviewmesh.join.ends import EndOffsets
from reviewmesh.settings import KafkaSettings, Settings
from tests.broker import TestStack
from tests.mesh import Mesh, Process, reviews

PRECISION_S = 2
SERIES = (1 + 3 + 4) * 6
SECONDS = "kafka_consumergroup_group_lag_seconds"
OLDEST_REVIEW = "reviewmesh_oldest_review_seconds"
LAG = "kafka_consumergroup_group_lag"
BACKLOG = "reviewmesh_backlog_records"
MEASUREMENT_AGE = "reviewmesh_lag_measurement_age_seconds"

Samples = dict[str, list[float]]


class Observer:
    """Publishes reviews, knows when, and compares what the lag service says with what is out."""

    def __init__(self, mesh: Mesh, lag: Process) -> None:
        self.mesh = mesh
        self.lag = lag
        self.published_at: dict[str, float] = {}
        # (when, what was not out then): enough of the past to tell what was out PRECISION_S ago.
        self._seen: deque[tuple[float, set[str]]] = deque([(0.0, set())])
        self.too_low_s = 0.0

    def publish(self, count: int, tag: str) -> None:
        batch = reviews(count, tag=tag)
        now = time.time()
        self.published_at |= {review["review_id"]: now for review in batch}
        self._seen.append((now, {review["review_id"] for review in batch}))
        self.mesh.publish(batch)

    def scrape(self) -> Samples:
        status, text = self.lag.get("/metrics")
        assert status == 200, text
        return {
            family.name: [sample.value for sample in family.samples]
            for family in text_string_to_metric_families(text)
        }

    def compare(self, *names: str) -> float:
        """One scrape that must not be further off than PRECISION_S; gives its largest value."""
        self._look()
        began = time.time()
        samples = self.scrape()
        ended = time.time()
        self._look()
        [measured_ago] = samples[MEASUREMENT_AGE]
        within = max(PRECISION_S, measured_ago)
        while len(self._seen) > 1 and self._seen[1][0] < began - within:
            self._seen.popleft()
        low = self.age(self._seen[-1][1], began)
        high = self.age(set().union(*(names for _, names in self._seen)), ended)
        for name in names:
            assert len(samples[name]) == SERIES
            measured = max(samples[name])
            self.too_low_s = max(self.too_low_s, low - measured)
            assert low - within <= measured <= high, (
                f"{name} {measured:.2f}, the truth {low:.2f} to {high:.2f}, "
                f"measured {measured_ago:.2f} s ago"
            )
        return max(samples[names[0]])

    def _look(self) -> None:
        now = time.time()
        self._seen.append((now, self.unfinished()))

    def unfinished(self) -> set[str]:
        return self.published_at.keys() - {r["review_id"] for r in self.mesh.enriched()}

    def age(self, unfinished: set[str], now: float) -> float:
        return max((now - self.published_at[name] for name in unfinished), default=0.0)

    def is_all_zero(self) -> bool:
        samples = self.scrape()
        return all(
            len(samples[name]) == SERIES and not any(samples[name])
            for name in (SECONDS, OLDEST_REVIEW, BACKLOG, LAG)
        )

    def wait_idle(self) -> None:
        self.mesh.wait_for(lambda: not self.unfinished(), 60, "every review out")
        self.mesh.wait_for(self.is_all_zero, 10, "every number 0, none absent, markers included")


@pytest.fixture(scope="module")
def observer(
    breakable_stack: TestStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observer]:
    folder: Path = tmp_path_factory.mktemp("lag")
    with Mesh(breakable_stack, f"l{uuid.uuid4().hex[:8]}.", folder) as mesh:
        mesh.start()
        lag = mesh.add("lag")
        lag.start()
        mesh.wait_for(lag.is_ready, 30, "a first measurement")
        yield Observer(mesh, lag)


def test_under_load_and_idle(observer: Observer) -> None:
    observer.wait_idle()
    observer.mesh.script(delay_ms=300)
    largest = 0.0
    for turn in range(4):
        observer.publish(100, f"load-{turn}")
        largest = max(largest, observer.compare(SECONDS, OLDEST_REVIEW))
    while observer.unfinished():
        largest = max(largest, observer.compare(SECONDS, OLDEST_REVIEW))
    assert largest > 0.5, "there was never enough to do for this to show anything"
    observer.wait_idle()
    observer.mesh.script()
    assert observer.compare(SECONDS, OLDEST_REVIEW) == 0
    print(f"seconds below the truth at most: {observer.too_low_s:.2f}")


def test_watching_shows_the_same_live(observer: Observer) -> None:
    terminal, theirs = pty.openpty()
    # Under a shell's `&` SIGINT is ignored and children inherit that: a terminal's Ctrl-C is not.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", f"{heard}from reviewmesh.cli.app import main; main()"]
    environment = observer.mesh.processes["lag"].environment | {"COLUMNS": "200"}
    watching = subprocess.Popen(
        [*command, "lag", "--watch"], env=environment, stdin=theirs, stdout=theirs
    )
    os.close(theirs)
    shown = ""
    while len(re.findall(r"\bintake +raw\b", shown)) < 2:
        shown += os.read(terminal, 65_536).decode()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(10) == 0
    os.close(terminal)
    assert re.search(r"\bjoiner +sentiment\b", shown)
    for words in ("time to drain", "last commit"):
        assert words in shown
    assert observer.mesh.prefix not in shown, "what all names begin with is left out"


def test_after_a_kill_of_a_service_and_of_the_workers(observer: Observer) -> None:
    mesh = observer.mesh
    mesh.processes["worker"].kill()
    observer.publish(30, "no-worker")
    wait_for_age(observer, 2, SECONDS, OLDEST_REVIEW)
    mesh.processes["intake"].kill()
    observer.publish(30, "no-intake")
    wait_for_age(observer, 3, SECONDS, OLDEST_REVIEW)
    mesh.processes["worker"].start()
    mesh.wait_for(lambda: len(observer.unfinished()) == 30, 30, "what was accepted is out")
    # What intake accepts late is young in its topic; the review is as old as it is.
    observer.compare(OLDEST_REVIEW)
    mesh.processes["intake"].start()
    while observer.unfinished():
        observer.compare(OLDEST_REVIEW)
    observer.wait_idle()
    print(f"seconds below the truth at most: {observer.too_low_s:.2f}")


def test_a_broker_that_goes_away(observer: Observer) -> None:
    mesh = observer.mesh
    ends = ends_of(mesh)
    mesh.wait_for(lambda: answers(ends), 20, "an end is known")
    mesh.processes["worker"].kill()
    observer.publish(5, "no-broker")
    wait_for_age(observer, 1, SECONDS)
    mesh.stack.stop("broker")
    try:
        words = f"the broker at {mesh.stack.bootstrap_servers} does not answer"
        mesh.wait_for(lambda: words in observer.lag.get("/readyz")[1], 20, "it says what it needs")
        assert observer.lag.get("/readyz")[0] == 503
        assert observer.lag.get("/healthz")[0] == 200
        grown = max(observer.scrape()[SECONDS])
        age = min(time.time() - observer.published_at[f"no-broker-{n}"] for n in range(5))
        assert abs(grown - age) <= PRECISION_S
        assert observer.scrape()[MEASUREMENT_AGE][0] > 0
    finally:
        mesh.stack.start("broker")
    mesh.wait_for(lambda: answers(ends), 20, "the joiner's way of asking for ends works again")
    mesh.wait_for(observer.lag.is_ready, 30, "it measures again")
    observer.compare(SECONDS, OLDEST_REVIEW)
    mesh.processes["worker"].start()
    observer.wait_idle()


def wait_for_age(observer: Observer, seconds: float, *names: str) -> None:
    """Compare all the while until the oldest review is that old."""
    deadline = time.monotonic() + 30
    while observer.compare(*names) < seconds:
        assert time.monotonic() < deadline


def ends_of(mesh: Mesh) -> EndOffsets:
    options = {name.replace(".", "_"): value for name, value in mesh.kafka.items()}
    kafka = KafkaSettings.model_validate(options)
    return EndOffsets(Settings(kafka=kafka, prefix=mesh.prefix), time.time)


def answers(ends: EndOffsets) -> bool:
    """Whether a question for an end is answered at once, as the joiner's deadlines need."""
    ends.ask("reviews.ner", 0)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if ends.reached(0, lambda topic, partition: sys.maxsize):
            return True
        time.sleep(0.02)
    return False
