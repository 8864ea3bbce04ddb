"""The join after an operator's reset: what is out is not repeated, what is missing comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from reviewmesh.join.published import Published
from reviewmesh.join.state import JoinWindows
from reviewmesh.loop.ledger import CompletionLedger
from reviewmesh_schemas.names import ACCEPTED, RESULT_OF, TASKS
from tests.unit.join.test_join import HOUR, MANY, WINDOWS, DeadlineMachine, Partition, accepted


class Resettable(Partition):
    """A partition whose opening mends resets as the joiner's does."""

    redo_until = 0
    covered_from_ms = 0.0

    def reset(self, topic: str, offset: int) -> None:
        """By an operator, while the joiner is down."""
        self.commits[topic] = CompletionLedger(offset).commit()
        if topic == ACCEPTED:
            self.redo_until = len(self.topics[ACCEPTED])
        else:
            self.set_back(topic)
        self.crash()

    def crash(self) -> None:
        first, self.published = self.commits[ACCEPTED].offset, None
        if self.redo_until > first:
            self.published = Published(first, self.redo_until, self.covered_from_ms)
            for record in self.out:
                self.published.add(record)
            for topic in RESULT_OF.values():
                self.set_back(topic)
        super().crash()

    def set_back(self, topic: str) -> None:
        first, records = self.commits[ACCEPTED].offset, self.topics[topic]
        needed = (n for n, record in enumerate(records) if record["accepted_offset"] >= first)
        offset = min(self.commits[topic].offset, next(needed, len(records)))
        self.commits[topic] = CompletionLedger(offset).commit()


class ResetMachine(DeadlineMachine):
    """Resets of every input fall anywhere too."""

    def __init__(self) -> None:
        super().__init__()
        self.partition: Resettable = Resettable(JoinWindows(HOUR, 60, 24 * HOUR))

    @rule()
    def everything_so_far_comes_out(self) -> None:
        self.everything_comes_in()
        self.unanswered.clear()

    @rule(data=st.data())
    def accepted_is_set_back(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, self.partition.commits[ACCEPTED].offset))
        self.partition.reset(ACCEPTED, offset)

    @precondition(lambda self: self.partition.topics[ACCEPTED])
    @rule(data=st.data(), task=st.sampled_from(TASKS))
    def results_are_set_anywhere(self, data: st.DataObject, task: str) -> None:
        topic = RESULT_OF[task]
        offset = data.draw(st.integers(0, len(self.partition.topics[topic])))
        before = self.partition.commits[topic].offset
        # What open partial records still wait for is the operator's to skip.
        self.partition.reset(topic, min(offset, before) if self.partition.partials else offset)


ResetMachine.TestCase.settings = MANY
TestResets = ResetMachine.TestCase


def complete(partition: Partition, review_id: str, content: str) -> int:
    offset = partition.add(review_id, content)
    for task in TASKS:
        partition.answer(task, offset)
    return offset


def contents(partition: Partition) -> list[tuple[str, bool]]:
    return [(record["content_hash"], record["complete"]) for record in partition.out]


def test_a_reset_to_earliest_publishes_nothing_again() -> None:
    partition = Resettable()
    for number in range(100):
        complete(partition, f"r{number % 40}", f"content {number}")
    partition.read_all()
    partition.commit()
    partition.reset(ACCEPTED, 0)
    partition.read_all()
    partition.commit()
    assert len(partition.out) == 100
    assert all(ledger.head == ledger.position for ledger in partition.ledgers.values())


def test_what_the_enriched_topic_lacks_comes_out_again_with_higher_revisions() -> None:
    partition = Resettable()
    for number in range(10):
        complete(partition, f"r{number}", "text")
    partition.read_all()
    partition.commit()
    highest = max(record["revision"] for record in partition.out)
    partition.gaps += 5
    del partition.out[:5]
    partition.reset(ACCEPTED, 0)
    partition.read_all()
    partition.commit()
    again = partition.out[5:]
    assert [record["review_id"] for record in again] == [f"r{number}" for number in range(5)]
    assert all(record["complete"] and record["revision"] > highest for record in again)


def test_a_skipped_version_does_not_come_out_over_a_later_one() -> None:
    partition = Resettable()
    complete(partition, "a", "first")
    partition.reset(ACCEPTED, 1)
    complete(partition, "a", "second")
    complete(partition, "b", "other")
    partition.read_all()
    partition.commit()
    partition.reset(ACCEPTED, 0)
    partition.read_all()
    partition.commit()
    assert [record["content_hash"] for record in partition.out] == ["second", "other"]
    assert all(ledger.head == ledger.position for ledger in partition.ledgers.values())


def test_an_incomplete_record_is_not_put_over_what_may_have_been_complete() -> None:
    partition = Resettable()
    complete(partition, "old", "text")
    partition.read_all()
    partition.commit()
    for topic in RESULT_OF.values():
        partition.topics[topic] = [{**partition.topics[topic][0], "review_id": "trimmed"}]
    partition.now = 7 * HOUR
    complete(partition, "new", "text")
    partition.read_all()
    partition.commit()
    del partition.out[0]
    partition.covered_from_ms = 6 * HOUR * 1000
    partition.reset(ACCEPTED, 0)
    partition.read_all()
    for task in TASKS:
        partition.join.read_to_end(task, partition.now)
    partition.tick()
    partition.commit()
    assert [record["review_id"] for record in partition.out] == ["new"]
    assert all(ledger.head == ledger.position for ledger in partition.ledgers.values())


def test_a_topic_that_was_made_anew_holds_other_reviews_at_the_same_offsets() -> None:
    published = Published(0, 10, 0.0)
    published.add({**accepted("old", "text"), "accepted_offset": 3})
    assert published.why_not(3, accepted("old", "text")) == "published"
    assert published.why_not(3, accepted("new", "text")) == ""
    assert published.why_not(30, accepted("old", "text")) == ""


def test_absurd_offsets_of_published_records_are_left_out() -> None:
    published = Published(5, 10, 0.0)
    for offset in (-1, 0, 10, 2**60):
        published.add({**accepted("r", "text"), "accepted_offset": offset})
    assert all(published.why_not(offset, accepted("r", "text")) == "" for offset in range(20))


# -- results that no review waits for --------------------------------------------------------


def outcomes(partition: Partition) -> list[tuple[str, str]]:
    return [emission.late for emission in partition.uncommitted if emission.late is not None]


def test_a_second_result_of_a_review_that_waits_is_finished() -> None:
    for arrives_before_its_review in (False, True):
        partition = Partition()
        offset = partition.add("a", "text")
        if not arrives_before_its_review:
            partition.step(ACCEPTED)
        for status in ("OK", "OK", "FAILED"):
            partition.answer("ner", offset, status)
            partition.step("reviews.ner")
        assert outcomes(partition) == [("ner", "doubled")] * 2
        partition.answer("topic", offset)
        partition.answer("sentiment", offset)
        partition.read_all()
        partition.commit()
        assert contents(partition) == [("text", True)]
        assert all(ledger.head == ledger.position for ledger in partition.ledgers.values())


def test_an_answer_takes_the_place_of_a_failure_that_is_not_out_yet() -> None:
    partition = Partition()
    offset = partition.add("a", "text")
    for status in ("FAILED", "OK"):
        partition.answer("ner", offset, status)
    partition.answer("topic", offset)
    partition.step(ACCEPTED)
    partition.read_all()
    partition.answer("sentiment", offset)
    partition.read_all()
    partition.commit()
    assert contents(partition) == [("text", True)]
    assert partition.ledgers["reviews.ner"].head == 2


def test_results_of_a_review_that_was_trimmed_are_finished() -> None:
    partition = Partition()
    complete(partition, "trimmed", "text")
    complete(partition, "after", "text")
    for topic in RESULT_OF.values():
        partition.step(topic)
        partition.step(topic)
    partition.read[ACCEPTED] = 1
    partition.read_all()
    partition.tick()
    assert outcomes(partition) == [(task, "orphaned") for task in TASKS]
    partition.commit()
    assert [record["review_id"] for record in partition.out] == ["after"]
    assert all(ledger.head == ledger.position for ledger in partition.ledgers.values())


def of_nowhere(partition: Partition, accepted_offset: int) -> dict[str, Any]:
    foreign = accepted("nobody", "text")
    partition.topics[ACCEPTED].append(foreign)
    partition.answer("ner", len(partition.topics[ACCEPTED]) - 1)
    del partition.topics[ACCEPTED][-1]
    result: dict[str, Any] = partition.topics["reviews.ner"][-1]
    result["accepted_offset"] = accepted_offset
    return result


def test_a_result_of_a_review_that_never_comes_holds_nothing_up() -> None:
    partition = Partition(replace(WINDOWS, max_wait_s=24 * HOUR))
    of_nowhere(partition, 2**60)
    slow = partition.add("slow", "text")
    for task in ("topic", "sentiment"):
        partition.answer(task, slow)
    partition.read_all()
    assert not partition.join.blocks("reviews.ner", 2)
    assert partition.join.doubts_early()
    partition.uncommitted += partition.join.accepted_read_to_end()
    assert outcomes(partition) == [("ner", "orphaned")]
    assert not partition.join.doubts_early()
    for number in range(100):
        complete(partition, f"r{number}", "text")
        partition.now += 1
        partition.read_all()
        partition.tick()
    partition.answer("ner", slow)
    partition.read_all()
    partition.commit()
    assert contents(partition) == [("text", True)] * 101


def test_what_came_after_the_question_is_not_doubted() -> None:
    partition = Partition()
    of_nowhere(partition, 50)
    partition.read_all()
    assert partition.join.doubts_early()
    offset = complete(partition, "a", "text")
    partition.step("reviews.ner")
    assert offset == 0
    assert partition.join.doubts_early()
    partition.uncommitted += partition.join.accepted_read_to_end()
    assert outcomes(partition) == [("ner", "orphaned")]
    partition.read_all()
    partition.commit()
    assert contents(partition) == [("text", True)]


def test_results_of_another_review_are_not_taken_for_those_of_this_one() -> None:
    for arrives_before_its_review in (False, True):
        partition = Partition()
        offset = partition.add("a", "text")
        of_nowhere(partition, offset)
        if arrives_before_its_review:
            partition.step("reviews.ner")
        partition.read_all()
        assert outcomes(partition) == [("ner", "foreign")]
        for task in TASKS:
            partition.answer(task, offset)
        partition.read_all()
        partition.commit()
        assert contents(partition) == [("text", True)]


def test_early_results_of_another_review_keep_those_of_this_one_in() -> None:
    """Accepted was made anew: the joiner reads older results of the same offset before both."""
    partition = Partition()
    old = partition.add("old", "text")
    for task in TASKS:
        partition.answer(task, old)
    partition.topics[ACCEPTED].clear()
    new = partition.add("new", "text")
    assert new == old
    for task in TASKS:
        partition.answer(task, new)
        partition.step(RESULT_OF[task])
        partition.step(RESULT_OF[task])
    assert partition.out == []
    partition.read_all()
    partition.commit()
    assert [(record["review_id"], record["complete"]) for record in partition.out] == [
        ("new", True)
    ]
    assert all(ledger.head == ledger.position for ledger in partition.ledgers.values())
