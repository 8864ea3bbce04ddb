"""Tombstones: what intake makes of them, and of replays that come after them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import REPLAY, REPLAY_OF, REPLAY_SINCE, Headers, Output, Record
from reviewmesh.loop.erasures import LETTER_SLACK_MS
from reviewmesh.loop.replays import letter_at
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW, REPLAYED
from tests.unit.intake.test_stage import ELSEWHERE, HOME, NOW, PARTITIONS, Intake

NOW_MS = int(NOW * 1000)
REVIEW_ID = b"r"


@pytest.fixture
def intake() -> Iterator[Intake]:
    intake = Intake()
    intake.assign(HOME, ELSEWHERE)
    yield intake
    intake.stage.stop()


def taken(intake: Intake, record: Record) -> tuple[Output, ...]:
    intake.stage.receive(record)
    [unit] = intake.stage.poll()
    assert unit.finished == ((RAW, record.offset),)
    if unit.committed is not None:
        unit.committed()
    return unit.outputs


def tombstone(intake: Intake, partition: int = HOME, headers: Headers = ()) -> Record:
    return intake.record(partition, None, headers, REVIEW_ID)


def topics(outputs: tuple[Output, ...]) -> list[str]:
    return [output.topic for output in outputs]


def replay(
    intake: Intake, value: bytes, letter_ms: int, since_ms: int | None = None, key: bytes = b"k"
) -> Record:
    name = letter_at("3/7", letter_ms, key, value).name.encode()
    since = () if since_ms is None else ((REPLAY_SINCE, str(since_ms).encode()),)
    return intake.record(HOME, value, ((REPLAY, b"all"), (REPLAY_OF, name), *since), key)


def accepted(intake: Intake, output: Output) -> dict[str, Any]:
    return intake.accepted.decode(output.value or b"")


def test_a_tombstone_is_a_version_without_content(intake: Intake) -> None:
    taken(intake, intake.record(HOME, intake.value(title="T", business_id="b", stars=5.0)))
    version, mark = taken(intake, tombstone(intake))
    assert (version.topic, version.key, version.partition) == (ACCEPTED, REVIEW_ID, HOME)
    erased = accepted(intake, version)
    assert erased["text"] == "(erased)"
    assert erased["erased_at"] == erased["accepted_at"] == NOW_MS
    assert [erased[name] for name in ("title", "business_id", "stars", "language")] == [None] * 4
    assert (mark.topic, mark.partition) == (REPLAYED, HOME)
    assert REVIEW_ID not in (mark.key or b"").removeprefix(b"erased/")


def test_a_tombstone_elsewhere_is_forwarded_home_and_keeps_its_place() -> None:
    intake, replica = Intake(secret="s" * 16), Intake(secret="s" * 16)
    intake.assign(ELSEWHERE)
    replica.assign(HOME)
    first = tombstone(intake, ELSEWHERE)
    [copy] = taken(intake, first)
    assert (copy.topic, copy.partition, copy.key, copy.value) == (RAW, HOME, REVIEW_ID, None)
    version, _ = taken(replica, replica.record(HOME, None, copy.headers, copy.key))
    erased = accepted(replica, version)
    assert (erased["source_partition"], erased["source_offset"]) == (ELSEWHERE, first.offset)


def test_the_code_of_one_tombstone_does_for_no_other() -> None:
    intake = Intake(secret="s" * 16)
    intake.assign(HOME, ELSEWHERE)
    [copy] = taken(intake, tombstone(intake, ELSEWHERE))
    other = next(
        key for key in (b"%d" % n for n in range(99)) if partition_of(key, PARTITIONS) == HOME
    )
    record = intake.record(HOME, None, copy.headers, other)
    version, _ = taken(intake, record)
    assert accepted(intake, version)["source_offset"] == record.offset


@pytest.mark.parametrize("key", [None, b"", b"  ", b"\xff", b"x" * 513])
def test_a_tombstone_about_no_review_is_a_dead_letter(intake: Intake, key: bytes | None) -> None:
    [letter] = taken(intake, intake.record(HOME, None, key=key))
    assert letter.topic == DEAD_LETTER
    told = intake.dead.decode(letter.value or b"")
    assert told["cause"] == "TOMBSTONE"
    assert "expected the review_id" in told["message"]


def test_a_repeated_tombstone_is_a_duplicate_and_renews_its_mark(intake: Intake) -> None:
    taken(intake, tombstone(intake))
    intake.now += 60
    assert topics(taken(intake, tombstone(intake))) == [REPLAYED]
    late = replay(intake, intake.value(), letter_ms=NOW_MS + 59_000)
    assert topics(taken(intake, late)) == [REPLAYED]


@pytest.mark.parametrize("again", [False, True], ids=["in memory", "read back"])
def test_a_replay_of_an_older_dead_letter_takes_no_effect(intake: Intake, again: bool) -> None:
    _, mark = taken(intake, tombstone(intake))
    if again:
        intake = Intake()
        intake.tail.replayed = [Record(REPLAYED, HOME, 0, mark.key, mark.value, (), NOW_MS)]
        intake.assign(HOME)
    old = replay(intake, intake.value(text="The old text."), letter_ms=NOW_MS + LETTER_SLACK_MS)
    # Only that it was replayed is kept.
    assert topics(taken(intake, old)) == [REPLAYED]


def test_a_replay_of_a_younger_dead_letter_takes_effect(intake: Intake) -> None:
    taken(intake, tombstone(intake))
    younger = replay(intake, intake.value(), letter_ms=NOW_MS + LETTER_SLACK_MS + 1)
    assert topics(taken(intake, younger)) == [ACCEPTED, REPLAYED]


def test_a_replay_that_failed_again_stays_as_old_as_it_is(intake: Intake) -> None:
    taken(intake, tombstone(intake))
    younger = replay(intake, intake.value(), NOW_MS + 10**6, since_ms=NOW_MS - 10**6)
    assert topics(taken(intake, younger)) == [REPLAYED]


def test_what_is_published_after_a_tombstone_is_accepted_after_it(intake: Intake) -> None:
    taken(intake, tombstone(intake))
    intake.now -= 5
    [version] = taken(intake, intake.record(HOME, intake.value()))
    assert accepted(intake, version)["accepted_at"] == NOW_MS + 1
    # Headers that were copied from a replay make no replay of another value.
    copied = replay(intake, intake.value(), letter_ms=0)
    other = copied._replace(value=intake.value(text="Another text."), offset=copied.offset + 1)
    assert topics(taken(intake, other)) == [ACCEPTED]


def test_versions_of_a_replica_whose_clock_is_ahead_are_covered(intake: Intake) -> None:
    intake.now += 5
    taken(intake, intake.record(HOME, intake.value()))
    intake.now -= 5
    version, _ = taken(intake, tombstone(intake))
    assert accepted(intake, version)["erased_at"] == NOW_MS + 5_000


def test_an_erasure_by_a_clock_that_is_ahead_lets_no_duplicate_of_another_review_pass(
    intake: Intake,
) -> None:
    names = map(str, range(100))
    other = next(name for name in names if partition_of(name.encode(), PARTITIONS) == HOME)
    intake.now += 2 * 3_600
    taken(intake, tombstone(intake))
    intake.now -= 2 * 3_600
    assert topics(taken(intake, intake.record(HOME, intake.value(other)))) == [ACCEPTED]
    assert topics(taken(intake, intake.record(HOME, intake.value()))) == [ACCEPTED]
    assert topics(taken(intake, intake.record(HOME, intake.value(other)))) == []
