"""Answers done again: what is refused, and how the joiner learns what is newer than a campaign."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.join.pipeline import PartitionJoin
from reviewmesh.join.reprocessed import FORGOTTEN_AFTER_S, AnswerCodecs, NoAnswer, Reprocessed
from reviewmesh.join.state import Emission, JoinWindows
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh_schemas.names import ENRICHED, REPROCESSED, TASKS
from tests.broker import wait_until

PARTITION = 3


class OneRegistry:
    """Gives every schema the same id, so that each codec reads what it wrote."""

    def id_of(self, subject: str, schema: Any) -> int:
        return 1


def codec(topic: str, schema: str) -> Codec:
    made = Codec(OneRegistry(), f"{topic}-value", schema)  # type: ignore[arg-type]
    made.prepare()
    return made


ENRICHED_CODEC = codec(ENRICHED, "enriched_review")
RESULTS = {task: codec(f"reviews.{task}", f"{task}_result") for task in TASKS}
ANSWER_CODEC = codec(REPROCESSED, "reprocessed_answer")
CODECS = AnswerCodecs(ANSWER_CODEC, ENRICHED_CODEC, RESULTS)


def enriched(review_id: str = "a", revision: int = 4, **changes: Any) -> dict[str, Any]:
    outcome = {"status": "OK", "error": None, "lineage": None}
    times = ("origin_at", "accepted_at", "ner_at", "topic_at", "sentiment_at", "enriched_at")
    return {
        "review_id": review_id,
        "content_hash": "c",
        "text": "Great.",
        "attributes": {},
        "accepted_partition": PARTITION,
        "accepted_offset": 7,
        "revision": revision,
        "complete": True,
        "tasks": {task: dict(outcome) for task in TASKS},
        "timings": dict.fromkeys(times, 1_000),
        **changes,
    }


def record(offset: int = 0, since: int = 10, **changes: Any) -> Record:
    result = {
        "review_id": "a",
        "content_hash": "c",
        "accepted_partition": PARTITION,
        "accepted_offset": 7,
        "status": "OK",
        "topics": [{"id": "price", "score": 0.9, "polarity": None}],
    }
    answer = {
        "review_id": "a",
        "campaign": "topic-1",
        "task": "topic",
        "enriched_offset": 5,
        "enriched": ENRICHED_CODEC.encode(enriched()),
        "enriched_since": since,
        "result": RESULTS["topic"].encode(result),
        **changes,
    }
    return Record(REPROCESSED, PARTITION, offset, b"a", ANSWER_CODEC.encode(answer))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "mood"}, "one of ner, topic, sentiment"),
        ({"review_id": "b"}, "of the same review_id"),
        (
            {"enriched": ENRICHED_CODEC.encode(enriched(accepted_partition=1))},
            "of partition 3, got one of 1",
        ),
        ({"enriched": ENRICHED_CODEC.encode(enriched(tasks={}))}, "none of \\['ner'"),
        ({"enriched": ENRICHED_CODEC.encode(enriched(timings=None))}, "with timings"),
    ],
)
def test_what_no_enricher_wrote_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(NoAnswer, match=problem):
        CODECS.decode(record(**changes), ())


@pytest.mark.parametrize("changes", [{"enriched": None}, {"result": None}, {"result": b"junk"}])
def test_what_does_not_decode_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        CODECS.decode(record(**changes), ())


class Log:
    """`reviews.enriched` of the partition; it may be away."""

    def __init__(self) -> None:
        self.records: dict[int, dict[str, Any]] = {}
        self.is_away = False
        self.starts: list[int] = []

    def read_from(self, topic: str, partition: int, start: int) -> Iterator[Record]:
        assert (topic, partition) == (ENRICHED, PARTITION)
        self.starts.append(start)
        if self.is_away:
            raise Unavailable("the broker is away")
        for offset, content in sorted(self.records.items()):
            if offset >= start:
                yield Record(topic, partition, offset, b"", ENRICHED_CODEC.encode(content))


class Joiner:
    def __init__(self) -> None:
        self.log = Log()
        self.now = time.time()
        windows = JoinWindows(max_wait_s=3600, straggler_s=60, late_window_s=3600)
        self.join = PartitionJoin(PARTITION, windows, lambda offset: False, lambda: 0, 100)
        reader: Any = self.log
        self.reprocessed = Reprocessed(reader, ENRICHED_CODEC, PARTITION, self.join)

    def take(self, taken: Record) -> list[Emission]:
        return self.reprocessed.take(CODECS.decode(taken, ()), self.now)

    def outcomes(self, count: int) -> list[str]:
        """What became of the next answers, once what is newer has been read back."""
        found: list[Emission] = []

        def done() -> bool:
            self.now += 1
            found.extend(self.reprocessed.go_on(self.now))
            return len(found) >= count

        wait_until(done, 20, f"{count} answers are joined")
        return [emission.again[1] for emission in found if emission.again]


@pytest.fixture
def joiner() -> Joiner:
    return Joiner()


def test_an_answer_waits_until_what_is_newer_was_read_back(joiner: Joiner) -> None:
    assert joiner.take(record()) == []
    assert joiner.reprocessed.is_waiting
    assert joiner.outcomes(1) == ["published"]
    assert joiner.log.starts == [10]
    # The next one of the campaign waits for nothing; what was published a moment ago is newer.
    [emission] = joiner.take(record(1))
    assert emission.again == ("topic", "superseded")
    assert joiner.log.starts == [10]


def test_a_higher_revision_that_came_since_wins(joiner: Joiner) -> None:
    joiner.log.records = {9: enriched(revision=50), 11: enriched(revision=5)}
    joiner.take(record())
    assert joiner.outcomes(1) == ["superseded"]


def test_an_older_revision_that_came_since_does_not(joiner: Joiner) -> None:
    joiner.log.records = {11: enriched(revision=4), 12: enriched("b", revision=99)}
    joiner.take(record())
    assert joiner.outcomes(1) == ["published"]


def test_what_is_published_and_not_committed_is_newer(joiner: Joiner) -> None:
    joiner.reprocessed.published("a", 101)
    joiner.take(record())
    assert joiner.outcomes(1) == ["superseded"]


def test_what_was_committed_is_found_in_the_topic_only(joiner: Joiner) -> None:
    joiner.reprocessed.published("a", 101)
    joiner.reprocessed.committed(101)
    joiner.take(record())
    assert joiner.outcomes(1) == ["published"]


def test_a_broker_that_is_away_is_asked_again(joiner: Joiner) -> None:
    joiner.log.is_away = True
    joiner.take(record())

    def asked(times: int) -> Callable[[], bool]:
        def is_asked() -> bool:
            joiner.now += 1
            assert joiner.reprocessed.go_on(joiner.now) == []
            return len(joiner.log.starts) >= times

        return is_asked

    wait_until(asked(2), 20, "it is asked again")
    joiner.log.is_away = False
    assert joiner.outcomes(1) == ["published"]


def test_an_older_campaign_reads_further_back(joiner: Joiner) -> None:
    joiner.take(record(since=10))
    assert joiner.outcomes(1) == ["published"]
    joiner.log.records[11] = enriched(revision=101)
    joiner.take(record(1, since=4))
    assert joiner.outcomes(1) == ["superseded"]
    assert joiner.log.starts == [10, 4]


def test_without_campaigns_nothing_is_remembered(joiner: Joiner) -> None:
    joiner.take(record())
    assert joiner.outcomes(1) == ["published"]
    joiner.now += FORGOTTEN_AFTER_S + 1
    joiner.reprocessed.go_on(joiner.now)
    assert joiner.join.newer is None
