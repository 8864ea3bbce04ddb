"""Insights on the real broker: killed, restarted, scaled, they equal a recount of the topic."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh_kit.exit_codes import FAILED, STANDS_STILL
from tests.broker import TestStack, wait_until
from tests.mesh import PARTITIONS, Mesh, Process, free_port

PYTHON = Path(__file__).parents[2] / ".venv-insights" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="Faust's environment is missing: run `make setup`"
)
COMMAND = [str(PYTHON), "-m", "reviewmesh.insights"]
HOUR_MS = 3_600_000
Window = tuple[str, int]


class Trends:
    """A topic of enriched reviews, written in transactions, and the service that counts them."""

    def __init__(self, stack: TestStack, prefix: str, folder: Path) -> None:
        self.mesh = Mesh(stack, prefix, folder)
        self.random = random.Random(prefix)
        self._producer: Producer | None = None

    def process(self, slot: str = "0", dies_at_write: int = 0, slow: bool = False) -> Process:
        name, port = f"insights-{slot}", free_port()
        dying = [str(PYTHON), "-m", "tests.dying_insights", str(dies_at_write)]
        environment = os.environ | {
            "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": self.mesh.stack.bootstrap_servers,
            "REVIEWMESH_REGISTRY__URL": self.mesh.stack.registry_url,
            "REVIEWMESH_PREFIX": self.mesh.prefix,
            "REVIEWMESH_SLOT": slot,
            "REVIEWMESH_HTTP__PORT": str(port),
        }
        command = dying if dies_at_write or slow else COMMAND
        process = Process(name, command, environment, self.mesh.folder / f"{name}.log", port)
        self.mesh.processes[name] = process
        return process

    def publish(self, count: int, business: str | None = None, abort: bool = False) -> None:
        """Reviews and revisions of reviews in one transaction; `business` for all of them."""
        codec, name = self.mesh.codec("reviews.enriched"), self.mesh.prefix + "reviews.enriched"
        producer = self._transactional()
        producer.begin_transaction()
        for _ in range(count):
            record = self._review(business)
            key = record["review_id"].encode()
            producer.produce(name, codec.encode(record), key, partition_of(key, PARTITIONS))
        producer.flush(30)
        if abort:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)

    def _transactional(self) -> Producer:
        if self._producer is None:
            self._producer = self.mesh.producer(**{"transactional.id": f"{self.mesh.prefix}joiner"})
            self._producer.init_transactions(30)
        return self._producer

    def _review(self, business: str | None) -> dict[str, Any]:
        pick = self.random
        label = pick.choice(["positive", "negative", "neutral", "mixed", None])
        return {
            "review_id": f"r-{pick.randrange(400)}",
            "content_hash": "00",
            "business_id": business or pick.choice(["harbour", "mill", "Zürich & Söhne", None]),
            "accepted_at": int(time.time() * 1000) - pick.randrange(3) * HOUR_MS,
            "stars": pick.choice([None, 1.0, 3.5, 5.0]),
            "topics": [
                {"id": topic, "score": 0.5, "polarity": pick.choice(["positive", "negative", None])}
                for topic in pick.sample(["food", "staff", "price"], pick.randrange(3))
            ],
            "sentiment": label and {"label": label, "scores": {}},
        }

    def insights(self) -> dict[Window, dict[str, Any]]:
        """The last record of each business and window; those without reviews left out."""
        last = {
            (record["business_id"], record["window_start"]): record
            for record in self.mesh.read("reviews.insights")
        }
        return {window: _comparable(record) for window, record in last.items() if record["reviews"]}

    def recount(self) -> dict[Window, dict[str, Any]]:
        latest = {record["review_id"]: record for record in self.mesh.read("reviews.enriched")}
        windows: dict[Window, list[dict[str, Any]]] = {}
        for record in latest.values():
            start = record["accepted_at"] // HOUR_MS * HOUR_MS
            windows.setdefault((record["business_id"] or "", start), []).append(record)
        return {window: _recounted(records) for window, records in windows.items()}

    def wait_equal(self, timeout_s: float = 90) -> None:
        recount = self.recount()
        try:
            wait_until(lambda: self.insights() == recount, timeout_s, "insights equal a recount")
        except AssertionError:
            got = self.insights()
            wrong = {
                key: (got.get(key), recount[key]) for key in recount if got.get(key) != recount[key]
            }
            print(self.mesh.report(), f"expected, of {len(recount)}: {wrong}")
            raise


def _recounted(records: list[dict[str, Any]]) -> dict[str, Any]:
    stars = [record["stars"] for record in records if record["stars"] is not None]
    topics: dict[str, dict[str, Any]] = {}
    for record in records:
        for topic in record["topics"]:
            entry = topics.setdefault(
                topic["id"], {"reviews": 0, "sentiment": Counter(), "polarity": Counter()}
            )
            entry["reviews"] += 1
            entry["polarity"].update([topic["polarity"]] if topic["polarity"] else [])
            entry["sentiment"].update([record["sentiment"]["label"]] if record["sentiment"] else [])
    return {
        "reviews": len(records),
        "rated_reviews": len(stars),
        "mean_stars": pytest.approx(sum(stars) / len(stars)) if stars else None,
        "sentiment": Counter(item["sentiment"]["label"] for item in records if item["sentiment"]),
        "topics": topics,
    }


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    fields = ("reviews", "rated_reviews", "mean_stars", "sentiment")
    topics = {
        topic["id"]: {key: topic[key] for key in ("reviews", "sentiment", "polarity")}
        for topic in record["topics"]
    }
    return {**{field: record[field] for field in fields}, "topics": topics}


def _counted(process: Process) -> float:
    """Enriched records that this process has counted or found counted."""
    return process.metric("reviewmesh_insights_records_total")


def wait_counted(process: Process, records: int) -> None:
    wait_until(lambda: _counted(process) >= records, 150, f"{records} records counted")


@pytest.fixture
def trends(stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Trends]:
    trends = Trends(stack, prefix, tmp_path)
    with trends.mesh:
        yield trends


def test_killed_twice_the_insights_equal_a_recount(trends: Trends) -> None:
    process = trends.process()
    process.start()
    wait_until(lambda: "topics apply" in process.get("/readyz")[1], 60, "it asks for its topics")
    assert process.get("/readyz")[0] == 503
    assert process.get("/healthz")[0] == 200
    trends.mesh.apply_topics()
    trends.publish(1500)
    trends.publish(50, business="aborted", abort=True)
    wait_counted(process, trends.random.randrange(1, 1500))
    time.sleep(trends.random.random() / 3)
    process.kill()
    trends.publish(1500)
    # Among the writes of its first batches.
    dying = trends.process(dies_at_write=trends.random.randrange(700, 1000))
    dying.start()
    assert dying.wait() == -signal.SIGKILL
    trends.publish(100)
    process = trends.process()
    process.start()
    trends.wait_equal()
    seen = trends.mesh.read("reviews.insights")
    assert "aborted" not in {record["business_id"] for record in seen}
    trends.mesh.publish_raw(b"no Avro", topic="reviews.enriched")
    undecodable = 'outcome="undecodable"} 1.0'
    wait_until(lambda: undecodable in process.get("/metrics")[1], 10, "junk is left out")
    assert process.is_ready()
    assert process.terminate() == 0


def test_a_second_replica_takes_a_share_and_gives_it_back(trends: Trends) -> None:
    trends.mesh.apply_topics()
    first, second = trends.process("0"), trends.process("1")
    first.start()
    trends.publish(200)
    trends.wait_equal()
    second.start()
    wait_until(second.is_ready, 60, "the second replica is ready")
    trends.publish(500)
    wait_counted(second, 1)
    assert second.terminate() == 0
    trends.publish(200)
    trends.wait_equal()
    assert first.terminate() == 0


def test_replicas_come_and_go_within_a_backlog_and_nothing_is_lost(trends: Trends) -> None:
    """Each change of the group finds records fetched and not yet written: writes are slow."""
    trends.mesh.apply_topics()
    trends.publish(4000)
    first, second = trends.process("0", slow=True), trends.process("1", slow=True)
    first.start()
    wait_counted(first, 1)
    second.start()
    wait_counted(second, 1)
    second.kill()
    trends.publish(1000)
    second.start()
    counted = _counted(first)
    wait_counted(first, int(counted) + 1)
    first.kill()
    wait_counted(second, 1)
    first.start()
    trends.wait_equal()
    wait_until(first.is_ready, 60, "the first replica is ready again")
    assert first.terminate() == 0
    assert second.terminate() == 0


def test_a_batch_is_written_by_one_reader_however_the_group_changes(trends: Trends) -> None:
    trends.mesh.apply_topics()
    trends.publish(400)
    trends.publish(400, abort=True)
    trends.publish(400)
    command = [str(PYTHON), "-m", "tests.insights_readers", "800"]
    environment = trends.process().environment
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "written_while_it_was_ours": True,
        "written_afterwards": False,
        "most_often": 1,
        "records": 800,
    }


def started_with(trends: Trends, change: str) -> Process:
    """The service with something else changed in its code, up to its end."""
    process = trends.process()
    start = (
        "from reviewmesh.insights import app, reader; "
        f"{change}; "
        "import runpy; runpy.run_module('reviewmesh.insights', run_name='__main__')"
    )
    process.command = [str(PYTHON), "-c", start]
    process.start()
    return process


def test_without_partitions_for_too_long_it_ends_and_says_why(trends: Trends) -> None:
    trends.mesh.apply_topics()
    process = started_with(trends, "reader.GroupReader.without_for_s = lambda self: app.JOIN_S + 1")
    assert process.wait() == STANDS_STILL
    assert "the group gave no partitions within 60 s" in process.log.read_text()


def test_a_loop_that_hangs_ends_the_process_with_a_code_of_its_own(trends: Trends) -> None:
    trends.mesh.apply_topics()
    trends.publish(10)
    hangs = "app.send = lambda topic, message: __import__('time').sleep(600)"
    soon = "from reviewmesh.loop import watchdog; watchdog.HANGS_AFTER_S = 3"
    process = started_with(trends, f"{soon}; {hangs}")
    assert process.wait() == STANDS_STILL
    assert "the polling thread hangs" in process.log.read_text()


def test_an_agent_that_fails_ends_the_process(trends: Trends) -> None:
    trends.mesh.apply_topics()
    trends.publish(10)
    process = started_with(trends, "app.send = None")
    assert process.wait() == FAILED
    assert "'NoneType' object is not callable" in process.log.read_text()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("REVIEWMESH_INSIGHTS__WINDOW_S", "0"),
        ("REVIEWMESH_KAFKA__SECURITY_PROTOCOL", "TELEPATHY"),
        ("REVIEWMESH_KAFKA__SASL_KERBEROS_KEYTAB", "here"),
    ],
)
def test_a_setting_that_it_cannot_follow_is_named(setting: str, value: str) -> None:
    secret = "correct-horse-battery"
    environment = os.environ | {setting: value, "REVIEWMESH_KAFKA__SASL_PASSWORD": secret}
    ended = subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert setting in ended.stderr
    assert secret not in ended.stdout + ended.stderr
