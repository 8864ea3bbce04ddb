"""The join: a machine that crashes at any point, and the deadlines by a clock of the test's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import structlog
from confluent_kafka import Message, TopicPartition
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from reviewmesh.join.enriched import ACCEPTED_FIELDS
from reviewmesh.join.pipeline import PartitionJoin
from reviewmesh.join.published import Published
from reviewmesh.join.state import Emission, JoinWindows, Partial, Questions
from reviewmesh.kafka.record import Output, Record, Unit
from reviewmesh.kafka.transactions import Aborted, OutcomeUnknown, TransactionalProducer
from reviewmesh.loop.dispatch import Dispatcher
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.ledger import Commit, CompletionLedger, Notes, restore
from reviewmesh.loop.outbox import Outbox
from reviewmesh.loop.poison import PoisonSearch
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Ledgers, Start
from reviewmesh_schemas.names import ACCEPTED, ENRICHED, RESULT_OF, TASKS

HOUR = 3600.0
ROOM = 500
WINDOWS = JoinWindows(max_wait_s=6 * HOUR, straggler_s=60, late_window_s=24 * HOUR)


def accepted(review_id: str, content: str, at: float = 0.0) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(ACCEPTED_FIELDS)
    fields.update(
        review_id=review_id,
        content_hash=content,
        text=content,
        attributes={},
        acceptance=1,
        erased_at=None,
        accepted_at=int(at * 1000),
    )
    return fields


def result(review: dict[str, Any], offset: int, status: str = "OK") -> dict[str, Any]:
    return {
        "review_id": review["review_id"],
        "content_hash": review["content_hash"],
        "accepted_offset": offset,
        "status": status,
        "error": None,
        "lineage": None,
        "produced_at": 0,
        "entities": [],
        "topics": [],
        "sentiment": {"label": "positive", "scores": {}},
    }


class JoinStage:
    """What the loop's parts ask of a stage, over one PartitionJoin."""

    service = "joiner"
    topics: tuple[str, ...] = (ACCEPTED, *RESULT_OF.values())
    state_topics: tuple[str, ...] = ()
    max_in_flight = max_window = 24_000

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def receive(self, record: Record) -> None:
        partition = self._partition
        content = partition.topics[record.topic][record.offset]
        if record.topic == ACCEPTED:
            at = content["accepted_at"] / 1000
            emissions = partition.join.accepted(
                record.offset, content, (), False, at, partition.now
            )
        else:
            task = record.topic.removeprefix("reviews.")
            emissions = partition.join.result(task, record.offset, content, partition.now)
        partition.uncommitted += emissions

    def poll(self) -> list[Unit]:
        emissions, self._partition.uncommitted = self._partition.uncommitted, []
        return [self._unit(emission) for emission in emissions]

    def _unit(self, emission: Emission) -> Unit:
        """Its output names the emission: what is encoded is no matter here."""
        emitted = self._partition.emitted
        emitted.append(emission)
        output = Output(ENRICHED, 0, emission.review_id.encode(), str(len(emitted) - 1).encode())
        return Unit(0, emission.finished, (output,))

    def transaction_outputs(self, units: Sequence[Unit]) -> Sequence[Output]:
        return ()

    def blocks(self, topic: str, partition: int) -> bool:
        return self._partition.join.blocks(topic, self._partition.room)

    def load(self, partition: int, starts: dict[str, Start]) -> None: ...

    def open(self, partition: int, ledgers: Ledgers, loaded: object) -> None: ...

    def close(self, partition: int) -> None: ...

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        raise AssertionError(f"the join raised over {record}: {message}")

    def waiting_for(self) -> str:
        return ""

    def waits_for(self, topic: str, partition: int) -> str:
        return ""

    def idle(self) -> bool:
        return True

    def stop(self) -> None: ...


Outcome = Literal["committed", "aborted", "unknown, committed", "unknown, not committed"]


class Partition:
    """A join with the loop's feed, outbox and ledgers; `crash` forgets all that is not committed.

    The log and the transactions are lists.
    """

    def __init__(self, windows: JoinWindows = WINDOWS) -> None:
        self.windows = windows
        self.topics: dict[str, list[Any]] = {topic: [] for topic in (ACCEPTED, *RESULT_OF.values())}
        self.commits = {topic: CompletionLedger(0).commit() for topic in self.topics}
        self.out: list[dict[str, Any]] = []
        self.partials: dict[str, dict[str, Any]] = {}
        self.now = 0.0
        # How many reviews and early results may wait.
        self.room = 10**9
        # Offsets of reviews.enriched that hold no record: transaction markers, aborted records.
        self.gaps = 0
        self.published: Published | None = None
        # Accepted offsets that an enricher is done with and whose results are gone.
        self.lost: dict[str, set[int]] = {task: set() for task in TASKS}
        # Everything that went to the outbox, by the number that its output carries.
        self.emitted: list[Emission] = []
        # How the next transaction ends.
        self.outcome: Outcome = "committed"
        self.crash()

    @property
    def ledgers(self) -> dict[str, CompletionLedger]:
        return {item.topic: item.ledger for item in self.inputs}

    def crash(self) -> None:
        """Reopened from what is committed, by the next process or after a producer was replaced."""
        self.inputs = Inputs()
        for topic, commit in self.commits.items():
            finished = restore(commit.offset, commit.metadata).finished
            ledger = CompletionLedger(commit.offset, finished, 24_000, 24_000)
            # Nobody died of a record here: see the tests of PoisonSearch.
            poison_search = PoisonSearch(Notes(), False, commit.offset)
            self.inputs.add([Input(topic, 0, ledger, poison_search)])
        stage, producer = self.make_stage(), cast(TransactionalProducer, self)
        self.outbox = Outbox(stage, "", self.inputs, producer)
        log = structlog.get_logger()
        self.dispatcher = Dispatcher(stage, self.inputs, self.outbox, "", Readiness(), log)
        self.stage = stage
        self.read = {topic: commit.offset for topic, commit in self.commits.items()}
        ledger = self.ledgers[ACCEPTED]
        self.join = PartitionJoin(
            0,
            self.windows,
            ledger.is_new,
            lambda: ledger.position,
            len(self.out) + self.gaps,
            self.published,
        )
        for record in self.partials.values():
            self.join.keep_partial(Partial.of(record, (), self.windows.late_window_s))
        self.uncommitted: list[Emission] = []
        self.outcome = "committed"
        # The commit that names the process, before anything is read.
        self.outbox.commit(None)

    def make_stage(self) -> JoinStage:
        return JoinStage(self)

    def step(self, topic: str, records: int = 1) -> None:
        """Read records of an input, as one poll gives them."""
        for _ in range(records):
            message: Any = Message(topic, 0, self.read[topic], timestamp=(1, 0))
            self.dispatcher.enqueue(message)
            self.read[topic] += 1
        self.dispatcher.dispatch()

    def again(self, topic: str, records: int) -> None:
        """The client gives records a second time, as after a seek that raced with a fetch."""
        self.read[topic] = max(self.commits[topic].offset, self.read[topic] - records)

    def tick(self) -> Questions:
        emissions, questions = self.join.tick(self.now)
        self.uncommitted += emissions
        return questions

    def ask_enricher(self, task: str) -> None:
        """The enricher commits an accepted offset together with its result."""
        results = self.topics[RESULT_OF[task]]
        finished = {*self.lost[task], *(result["accepted_offset"] for result in results)}
        self.join.finished_by_enricher(task, finished.__contains__, self.now)

    def commit(self, outputs: Any = None, offsets: Any = (), group_metadata: Any = None) -> None:
        """Everything, by as many transactions as it takes; the outbox calls it for each of them."""
        if outputs is not None:
            self._transact(outputs, offsets)
            return
        self.outbox.add(self.stage.poll())
        try:
            self.outbox.commit(None)
            while self.outbox:
                self.outbox.commit(None)
        except Aborted:
            return
        except OutcomeUnknown:
            self.crash()

    def _transact(self, outputs: list[Output], offsets: list[TopicPartition]) -> None:
        outcome, self.outcome = self.outcome, "committed"
        self.gaps += 1
        if outcome in ("committed", "unknown, committed"):
            for output in outputs:
                self._appear(self.emitted[int(output.value or b"")])
            for at in offsets:
                self.commits[at.topic] = Commit(at.offset, at.metadata or "")
        if outcome == "aborted":
            raise Aborted("the group is rebalancing")
        if outcome != "committed":
            raise OutcomeUnknown("no answer")

    def _appear(self, emission: Emission) -> None:
        if emission.enriched is not None:
            self.out.append(emission.enriched)
        if emission.partial == "write":
            assert emission.enriched is not None
            self.partials[emission.review_id] = emission.enriched
        elif emission.partial == "erase":
            self.partials.pop(emission.review_id, None)

    def read_all(self) -> None:
        for topic in self.topics:
            while self.read[topic] < len(self.topics[topic]):
                self.step(topic)

    def read_unblocked(self) -> None:
        """Read as the loop does, until nothing is left or every input is blocked."""
        self.room = ROOM
        before = None
        while before != self.read:
            before = dict(self.read)
            for topic in self.topics:
                left = len(self.topics[topic]) - self.read[topic]
                while left and not self.stage.blocks(topic, 0):
                    self.step(topic)
                    left -= 1

    def add(self, review_id: str, content: str) -> int:
        self.topics[ACCEPTED].append(accepted(review_id, content, self.now))
        return len(self.topics[ACCEPTED]) - 1

    def answer(self, task: str, offset: int, status: str = "OK") -> None:
        self.topics[RESULT_OF[task]].append(result(self.topics[ACCEPTED][offset], offset, status))


class JoinMachine(RuleBasedStateMachine):
    """Inputs advance at any pace, results come in any order, crashes fall anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.partition = Partition()
        self.unanswered: dict[str, list[int]] = defaultdict(list)
        self.published: list[tuple[str, str]] = []

    @rule(review_id=st.sampled_from("abc"))
    def accept(self, review_id: str) -> None:
        content = f"content {len(self.published)}"
        offset = self.partition.add(review_id, content)
        self.published.append((review_id, content))
        for task in TASKS:
            self.unanswered[task].append(offset)

    @precondition(lambda self: any(self.unanswered.values()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([t for t in TASKS if self.unanswered[t]]))
        offset = data.draw(st.sampled_from(self.unanswered[task]))
        self.unanswered[task].remove(offset)
        self.partition.answer(task, offset)

    @rule(topic=st.sampled_from([ACCEPTED, *RESULT_OF.values()]))
    def read_one(self, topic: str) -> None:
        if self.partition.read[topic] < len(self.partition.topics[topic]):
            self.partition.step(topic)

    @rule(topic=st.sampled_from([ACCEPTED, *RESULT_OF.values()]), records=st.integers(2, 9))
    def read_some(self, topic: str, records: int) -> None:
        partition = self.partition
        partition.step(topic, min(records, len(partition.topics[topic]) - partition.read[topic]))

    @rule(records=st.integers(1, 9))
    def records_come_again(self, records: int) -> None:
        for topic in self.partition.topics:
            self.partition.again(topic, records)

    @rule()
    def commit(self) -> None:
        self.partition.commit()

    @rule(outcome=st.sampled_from(get_args(Outcome)))
    def a_transaction_ends(self, outcome: Outcome) -> None:
        self.partition.outcome = outcome
        self.partition.commit()
        self.partition.outcome = "committed"

    @rule()
    def crash(self) -> None:
        self.partition.crash()

    @rule()
    def rebalance(self) -> None:
        """Revoked with a last transaction, read on by the next owner."""
        self.partition.commit()
        self.partition.crash()

    def teardown(self) -> None:
        self.everything_comes_in()
        wanted: dict[str, list[str]] = defaultdict(list)
        got: dict[str, list[str]] = defaultdict(list)
        numbers: dict[str, list[int]] = defaultdict(list)
        for review_id, content in self.published:
            wanted[review_id].append(content)
        for record in self.partition.out:
            assert record["complete"]
            assert record["revision"] > max(numbers[record["review_id"]], default=0)
            numbers[record["review_id"]].append(record["revision"])
            got[record["review_id"]].append(record["content_hash"])
        assert got == wanted

    def everything_comes_in(self) -> None:
        for task in TASKS:
            for offset in self.unanswered[task]:
                self.partition.answer(task, offset)
        self.partition.read_all()
        self.partition.commit()
        assert all(ledger.head == ledger.position for ledger in self.partition.ledgers.values())


class DeadlineMachine(JoinMachine):
    """Time passes too, within the late window: what was published without an answer completes."""

    def __init__(self) -> None:
        super().__init__()
        self.partition = Partition(JoinWindows(HOUR, straggler_s=60, late_window_s=24 * HOUR))

    @rule(seconds=st.sampled_from([1.0, 70.0, 2 * HOUR]), caught_up=st.booleans())
    def time_passes(self, seconds: float, caught_up: bool) -> None:
        partition = self.partition
        if partition.now + seconds < partition.windows.late_window_s:
            partition.now += seconds
        if caught_up:
            partition.read_all()
        for task in TASKS:
            topic = RESULT_OF[task]
            if partition.read[topic] == len(partition.topics[topic]):
                partition.join.read_to_end(task, partition.now)
        partition.tick()

    def teardown(self) -> None:
        self.everything_comes_in()
        versions: dict[str, list[str]] = defaultdict(list)
        for review_id, content in self.published:
            versions[review_id].append(content)
        for review_id, contents in versions.items():
            self.check_review(
                contents, [r for r in self.partition.out if r["review_id"] == review_id]
            )

    def check_review(self, contents: list[str], records: list[dict[str, Any]]) -> None:
        numbers = [record["revision"] for record in records]
        assert all(earlier < later for earlier, later in pairwise(numbers))
        order = [contents.index(record["content_hash"]) for record in records]
        assert order == sorted(order), "a version came out after its successor"
        for content in contents:
            revisions = [r for r in records if r["content_hash"] == content]
            assert revisions, f"{content} was lost"
            assert not any(record["complete"] for record in revisions[:-1])
            if content == contents[-1]:
                assert revisions[-1]["complete"]


MANY = settings(max_examples=80, stateful_step_count=60, deadline=None, derandomize=True)
JoinMachine.TestCase.settings = MANY
DeadlineMachine.TestCase.settings = MANY
TestJoin = JoinMachine.TestCase
TestDeadlines = DeadlineMachine.TestCase


def statuses(record: dict[str, Any]) -> dict[str, str]:
    return {task: outcome["status"] for task, outcome in record["tasks"].items()}


def test_max_wait_gives_a_partial_record_and_a_late_answer_the_next_revision() -> None:
    partition = Partition()
    offset = partition.add("a", "text")
    partition.answer("ner", offset)
    partition.answer("topic", offset)
    partition.now = 7 * HOUR
    partition.read_all()
    assert partition.tick() == Questions(ends=frozenset({"sentiment"}))
    partition.commit()
    assert partition.out == [], "a deadline counts only once the partition was read to its end"
    partition.join.read_to_end("sentiment", partition.now)
    partition.tick()
    partition.commit()
    assert statuses(partition.out[0])["sentiment"] == "TIMEOUT"
    assert not partition.out[0]["complete"]
    partition.crash()
    partition.answer("sentiment", offset)
    partition.read_all()
    late = [emission.late for emission in partition.uncommitted if emission.late is not None]
    assert late == [("sentiment", "merged")], "what the metric of late results counts"
    partition.commit()
    assert [r["complete"] for r in partition.out] == [False, True]
    assert partition.out[0]["revision"] < partition.out[1]["revision"]
    assert partition.partials == {}


def test_a_joiner_that_was_down_longer_than_max_wait_times_nothing_out() -> None:
    partition = Partition()
    offsets = [partition.add(f"r{number}", "text") for number in range(200)]
    for task in TASKS:
        for offset in offsets:
            partition.answer(task, offset)
    partition.now = 30 * HOUR
    for topic in (ACCEPTED, *list(RESULT_OF.values())):
        for _ in range(200):
            partition.step(topic)
            partition.tick()
    partition.commit()
    assert len(partition.out) == 200
    assert all(record["complete"] for record in partition.out)


def test_a_task_an_hour_behind_times_nothing_out() -> None:
    partition = Partition()
    for number in range(500):
        offset = partition.add(f"r{number}", "text")
        partition.answer("ner", offset)
        partition.answer("topic", offset)
        partition.now += 7.2
        partition.read_all()
        for task in TASKS:
            partition.join.read_to_end(task, partition.now)
        partition.tick()
    for offset in range(500):
        partition.answer("sentiment", offset)
        partition.now += 0.5
        partition.read_all()
        partition.join.read_to_end("sentiment", partition.now)
        partition.tick()
    partition.commit()
    assert len(partition.out) == 500
    assert all(record["complete"] for record in partition.out)


def test_late_results_of_a_version_that_was_followed_are_dropped() -> None:
    partition = Partition()
    first = partition.add("a", "one")
    partition.answer("ner", first)
    partition.now = 7 * HOUR
    partition.read_all()
    for task in TASKS:
        partition.join.read_to_end(task, partition.now)
    partition.tick()
    second = partition.add("a", "two")
    for task in TASKS:
        partition.answer(task, second)
    partition.answer("topic", first)
    partition.read_all()
    partition.commit()
    assert [record["text"] for record in partition.out][:1] == ["one"]
    assert partition.out[-1]["text"] == "two"
    assert partition.partials == {}


def test_a_review_that_waits_long_for_one_task_stops_no_other() -> None:
    partition = Partition()
    for number in range(3 * ROOM):
        offset = partition.add(f"r{number}", "text")
        for task in TASKS:
            if number or task != "topic":
                partition.answer(task, offset)
    partition.read_unblocked()
    partition.commit()
    assert len(partition.out) == 3 * ROOM - 1
    partition.answer("topic", 0)
    partition.read_unblocked()
    partition.commit()
    assert len(partition.out) == 3 * ROOM


def test_a_task_that_is_behind_bounds_what_the_others_leave_here() -> None:
    partition = Partition()
    for number in range(3 * ROOM):
        offset = partition.add(f"r{number}", "text")
        partition.answer("ner", offset)
        partition.answer("sentiment", offset)
    partition.read_unblocked()
    assert partition.read[ACCEPTED] == ROOM
    assert partition.read["reviews.ner"] <= 2 * ROOM + 1
    assert partition.join.blocks("reviews.ner", ROOM)
    assert not partition.join.blocks("reviews.topic", ROOM)
    for offset in range(3 * ROOM):
        partition.answer("topic", offset)
    partition.read_unblocked()
    partition.commit()
    assert len(partition.out) == 3 * ROOM


def timed_out(partition: Partition) -> int:
    """A review that came out without topic and sentiment; its accepted offset."""
    offset = partition.add("a", "text")
    partition.answer("ner", offset)
    partition.read_all()
    partition.now = 7 * HOUR
    for task in TASKS:
        partition.join.read_to_end(task, partition.now)
    partition.tick()
    partition.commit()
    return offset


def test_a_partial_record_is_erased_after_the_late_window() -> None:
    partition = Partition()
    offset = timed_out(partition)
    assert list(partition.partials) == ["a"]
    partition.now += WINDOWS.late_window_s + 1
    partition.tick()
    partition.commit()
    assert partition.partials == {}
    partition.answer("topic", offset)
    partition.answer("sentiment", offset)
    partition.read_all()
    partition.commit()
    assert len(partition.out) == 1


def test_a_replay_of_a_partial_record_is_its_next_revision() -> None:
    partition = Partition()
    timed_out(partition)
    partition.crash()
    again = partition.add("a", "text")
    for task in TASKS:
        partition.answer(task, again)
    partition.read_all()
    partition.commit()
    assert [r["complete"] for r in partition.out] == [False, True]
    assert partition.out[0]["revision"] < partition.out[1]["revision"]
    assert partition.partials == {}
