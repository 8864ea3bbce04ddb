"""Resets of intake over logs in memory: what was judged gets no second outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import REPLAY, REPLAY_OF, Headers, Output, Record
from reviewmesh.loop.inputs import Inputs
from reviewmesh.loop.replays import letter_at
from reviewmesh.loop.stage import Start
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW, REPLAYED
from tests.unit.intake.test_stage import NOW, PARTITIONS, Intake

HOME = partition_of(b"r", PARTITIONS)
ELSEWHERE = (HOME + 1) % PARTITIONS
WINDOW_S = 25 * 3600
SECRETS = [None, "s" * 16]
TO_EARLIEST = dict.fromkeys(range(PARTITIONS), 0)


class Logs:
    """The topics' partitions, as `PartitionReader` gives them."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Record]] = {}
        self.low: dict[tuple[str, int], int] = {}

    def append(self, output: Output, timestamp_ms: int) -> None:
        log = self.records.setdefault((output.topic, output.partition), [])
        log.append(
            Record(
                output.topic,
                output.partition,
                len(log),
                output.key,
                output.value,
                output.headers,
                timestamp_ms,
            )
        )

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        at = topic, partition
        return self.low.get(at, 0), len(self.records.get(at, ()))

    def read_from(self, topic: str, partition: int, start: int) -> Iterator[Record]:
        low, _ = self.bounds(topic, partition)
        yield from self.records.get((topic, partition), [])[max(low, start) :]

    def read_tail(
        self, topic: str, partition: int, since: int | None, at_most: int | None
    ) -> Iterator[Record]:
        for record in self.read_from(topic, partition, 0):
            if since is None or record.timestamp_ms >= since:
                yield record


class World:
    """Intake over these logs."""

    def __init__(self, secret: str | None = None) -> None:
        self.logs = Logs()
        self.now = NOW
        self.secret = secret
        self.start(dict.fromkeys(range(PARTITIONS), 0))

    def start(self, offsets: Mapping[int, int], reset: bool = False) -> None:
        """A process of intake that begins at these offsets."""
        tail: Any = self.logs
        self.intake = Intake(tail=tail, secret=self.secret, now=self.now)
        self.heads = dict(offsets)
        self.starts = {}
        for partition, offset in self.heads.items():
            first = max(offset, self.logs.bounds(RAW, partition)[0])
            self.heads[partition] = first
            starts = {RAW: Start(RAW, first, reset=reset)}
            loaded = self.intake.stage.load(partition, starts)
            self.intake.stage.open(partition, Inputs(), loaded)
            self.starts[partition] = starts[RAW]

    def go_on_elsewhere(self) -> None:
        """As another process takes over amid a reset: how far it goes came with the commits."""
        for partition, offset in self.heads.items():
            starts = {
                RAW: Start(RAW, offset, frozenset(), False, self.starts[partition].redo_until)
            }
            self.intake.stage.close(partition)
            loaded = self.intake.stage.load(partition, starts)
            self.intake.stage.open(partition, Inputs(), loaded)

    def reset(self, offsets: Mapping[int, int] = TO_EARLIEST) -> None:
        self.intake.stage.stop()
        self.start({**self.heads, **offsets}, reset=True)
        self.run()

    def publish(
        self, partition: int, review_id: str, text: str, headers: Headers = (), key: bytes = b"k"
    ) -> None:
        value = self.intake.value(review_id, text=text)
        self.put(Output(RAW, partition, key, value, headers))

    def put(self, output: Output) -> None:
        self.now += 0.01
        self.intake.now = self.now
        self.logs.append(output, int(self.now * 1000))

    def run(self, at_most: int = 10_000) -> None:
        """Judge what there is, copies of it too."""
        stage, moved = self.intake.stage, True
        while moved and at_most:
            moved = False
            for partition, head in self.heads.items():
                for record in list(self.logs.read_from(RAW, partition, head))[:at_most]:
                    moved, at_most = True, at_most - 1
                    stage.receive(record)
                    for unit in stage.poll():
                        for output in unit.outputs:
                            self.put(output)
                    self.heads[partition] = record.offset + 1

    def pass_time(self) -> None:
        """Duplicates of what came before are none any more."""
        self.now += WINDOW_S
        self.intake.now = self.now

    def trim(self, topic: str, partition: int) -> None:
        self.logs.low[topic, partition] = self.logs.bounds(topic, partition)[1]

    def accepted(self) -> list[tuple[str, str, int, int]]:
        return [
            (item["review_id"], item["text"], item["source_partition"], item["source_offset"])
            for partition in range(PARTITIONS)
            for record in self.logs.records.get((ACCEPTED, partition), [])
            for item in [self.intake.accepted.decode(record.value or b"")]
        ]

    def texts(self, review_id: str = "r") -> list[str]:
        return [text for key, text, *_ in self.accepted() if key == review_id]

    def letters(self) -> list[tuple[Record, dict[str, Any]]]:
        return [
            (record, self.intake.dead.decode(record.value or b""))
            for partition in range(PARTITIONS)
            for record in self.logs.records.get((DEAD_LETTER, partition), [])
        ]


@pytest.fixture(params=SECRETS, ids=["unsigned", "signed"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.mark.parametrize("partition", [HOME, ELSEWHERE])
def test_a_duplicate_whose_original_lies_before_the_reset_stays_dropped(
    world: World, partition: int
) -> None:
    for _ in range(2):
        world.publish(partition, "r", "A")
        world.run()
    world.pass_time()
    world.reset({HOME: 1})
    world.reset({HOME: 1})
    assert world.texts() == ["A"]


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("where", [(HOME, HOME), (HOME, ELSEWHERE), (ELSEWHERE, ELSEWHERE)])
def test_edits_to_and_fro_come_out_once_from_wherever_intake_begins_again(
    world: World, first: int, where: tuple[int, int]
) -> None:
    for number, text in enumerate("AABAAB"):
        world.publish(where[number % 2], "r", text)
        world.run()
    assert world.texts() == ["A", "B", "A", "B"]
    world.pass_time()
    world.reset({HOME: first})
    world.reset({HOME: first, ELSEWHERE: first // 2})
    assert world.texts() == ["A", "B", "A", "B"]


def test_what_a_reset_skipped_is_judged_by_what_lies_before_it(world: World) -> None:
    world.publish(HOME, "r", "A")
    world.run()
    world.publish(HOME, "r", "B")
    world.reset({HOME: 2})
    world.publish(HOME, "r", "C")
    world.publish(HOME, "r", "C")
    world.run()
    world.pass_time()
    world.reset({HOME: 1})
    assert world.texts() == ["A", "C", "B"]
    world.pass_time()
    world.reset({HOME: 3})
    assert world.texts() == ["A", "C", "B"], "the last C repeats the C before it"


def test_a_process_that_takes_over_amid_a_reset_knows_what_lies_before_it(world: World) -> None:
    for text in ("A", "A", "x", "A"):
        world.publish(HOME, "r" if text == "A" else "other", text)
    world.run()
    world.pass_time()
    world.intake.stage.stop()
    world.start(TO_EARLIEST, reset=True)
    for partition in range(PARTITIONS):
        if partition == HOME:
            world.heads[partition] = 1
    world.go_on_elsewhere()
    world.run()
    assert world.texts() == ["A"]


def test_a_review_whose_copy_was_deleted_is_not_forwarded_again(world: World) -> None:
    world.publish(ELSEWHERE, "r", "A")
    world.publish(ELSEWHERE, "r", "A")
    world.publish(ELSEWHERE, "r", " ")
    world.run()
    assert (world.texts(), len(world.letters())) == (["A"], 1)
    world.pass_time()
    world.trim(RAW, HOME)
    for first in (0, 0, 1, 2):
        world.reset({**TO_EARLIEST, ELSEWHERE: first})
    assert (world.texts(), len(world.letters())) == (["A"], 1)
    assert len(world.logs.records[RAW, HOME]) == 3, "nothing was forwarded again"


def test_a_stranger_that_names_the_place_of_another_record_keeps_none_from_being_judged(
    world: World,
) -> None:
    world.publish(ELSEWHERE, "r", "A")
    place = f"{RAW}/{ELSEWHERE}/0".encode()
    world.start({**world.heads, ELSEWHERE: 1})
    world.publish(HOME, "r", "other", (("reviewmesh-forwarded-from", place),))
    world.publish(HOME, "r", " ", (("reviewmesh-forwarded-from", place),))
    world.run()
    world.trim(RAW, HOME)
    assert (world.texts(), len(world.letters())) == (["other"], 1)
    world.reset()
    assert world.texts() == ["other", "A"]


TOMBSTONE = "-"
OPERATIONS = st.lists(
    st.tuples(
        st.just("publish"), st.integers(0, 1), st.sampled_from("rs"), st.sampled_from("AAB -")
    )
    | st.tuples(st.just("time"))
    | st.tuples(st.just("run"))
    | st.tuples(st.just("back"), st.integers(0, 4), st.integers(0, 4))
    | st.tuples(st.just("skip")),
    min_size=6,
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(OPERATIONS, st.sampled_from(SECRETS))
def test_no_record_is_accepted_twice_whatever_is_reset(
    operations: list[tuple[Any, ...]], secret: str | None
) -> None:
    world, skipped = World(secret), False
    for name, *more in operations:
        if name == "publish":
            elsewhere, review_id, text = more
            home = partition_of(review_id.encode(), PARTITIONS)
            if text == TOMBSTONE:
                world.put(Output(RAW, (home + elsewhere) % PARTITIONS, review_id.encode(), None))
            else:
                world.publish((home + elsewhere) % PARTITIONS, review_id, text)
        elif name == "time":
            world.run()
            world.pass_time()
        elif name == "run":
            world.run()
        elif name == "skip":
            skipped = True
            world.reset({p: world.logs.bounds(RAW, p)[1] for p in range(PARTITIONS)})
        else:
            world.run()
            world.pass_time()
            before, letters = world.accepted(), len(world.letters())
            world.reset({p: min(more[p % 2], head) for p, head in world.heads.items()})
            assert skipped or world.accepted() == before
            assert skipped or len(world.letters()) == letters
    world.intake.stage.stop()
    times = Counter((partition, offset) for *_, partition, offset in world.accepted())
    assert set(times.values()) <= {1}


# -- replays -----------------------------------------------------------------------------------


def replay_of(world: World, number: int) -> Output:
    """As `dlq replay` sends it."""
    at, letter = world.letters()[number]
    place = f"{at.partition}/{at.offset}"
    named = letter_at(place, at.timestamp_ms, letter["key"], letter["value"]).name.encode()
    kept = tuple(
        (header["key"], header["value"])
        for header in letter["headers"]
        if header["key"] not in (REPLAY, REPLAY_OF)
    )
    headers = (*kept, (REPLAY, b"all"), (REPLAY_OF, named))
    return Output(RAW, letter["partition"], letter["key"], letter["value"], headers)


def test_each_replay_takes_effect_once_after_resets_too(world: World) -> None:
    world.publish(ELSEWHERE, "r", " ")
    world.publish(ELSEWHERE, "s", "", key=b"junk")
    world.put(Output(RAW, ELSEWHERE, None, None))
    world.put(Output(RAW, ELSEWHERE, b"u", b"junk"))
    world.run()
    replayed: set[tuple[int, int]] = set()
    for turn in range(1, 3):
        fresh = [
            (number, (at.partition, at.offset))
            for number, (at, _) in enumerate(world.letters())
            if (at.partition, at.offset) not in replayed
        ]
        assert len(fresh) == 4
        replays = [replay_of(world, number) for number, _ in fresh]
        replayed |= {place for _, place in fresh}
        for replay in replays * 3:
            world.put(replay)
        world.run()
        assert len(world.letters()) == 4 * (turn + 1)
        world.pass_time()
        world.reset()
        world.reset({HOME: 3, ELSEWHERE: 2})
        assert len(world.letters()) == 4 * (turn + 1)


def test_reviews_with_headers_that_were_copied_from_a_replay_all_come_out(world: World) -> None:
    world.put(Output(RAW, HOME, b"k", b"junk"))
    world.run()
    replay = replay_of(world, 0)
    world.put(replay)
    for number in range(20):
        world.publish(HOME, f"r{number}", f"Text {number}", replay.headers)
        world.publish(
            HOME, f"old{number}", f"Text {number}", ((REPLAY, b"all"), (REPLAY_OF, b"3/41"))
        )
    world.run()
    assert len(world.accepted()) == 40
    marks = [at for at in world.logs.records if at[0] == REPLAYED]
    assert sum(len(world.logs.records[at]) for at in marks) >= 1
