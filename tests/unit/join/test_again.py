"""Answers done again: never older content over newer, each once, whatever crashes."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reviewmesh.join import newer as newer_module
from reviewmesh.join.newer import Newer
from reviewmesh.join.pipeline import PartitionJoin
from reviewmesh.join.state import AnswerAgain, Emission
from reviewmesh.kafka.record import Record
from reviewmesh.loop.ledger import CompletionLedger
from reviewmesh_schemas.names import ACCEPTED, REPROCESSED, RESULT_OF, TASKS
from tests.unit.join.test_join import JoinStage, Partition, accepted, result

IDS = ("a", "b", "c")


class AgainStage(JoinStage):
    """Reads answers done again, too."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._log = log

    def receive(self, record: Record) -> None:
        if record.topic != REPROCESSED:
            super().receive(record)
            return
        again = self._log.topics[REPROCESSED][record.offset]
        self._log.know_what_is_newer(again)
        emission = self._log.join.again(again, self._log.now)
        assert not (emission.enriched and self._log.is_pending(again.enriched["review_id"]))
        self._log.uncommitted.append(emission)

    def blocks(self, topic: str, partition: int) -> bool:
        return topic != REPROCESSED and super().blocks(topic, partition)


class Log(Partition):
    """A partition whose joiner reads answers done again, too."""

    def __init__(self) -> None:
        super().__init__()
        self.topics[REPROCESSED] = []
        self.commits[REPROCESSED] = CompletionLedger(0).commit()
        self.crash()

    def make_stage(self) -> JoinStage:
        # What went to the outbox before this life never comes out any more.
        self._first_of_life = len(self.emitted)
        return AgainStage(self)

    def unseen(self) -> list[Emission]:
        """What this life has emitted and no reader of the topic can see."""
        seen = {id(record) for record in self.out}
        emitted = self.emitted[self._first_of_life :] + self.uncommitted
        return [emission for emission in emitted if id(emission.enriched) not in seen]

    def is_pending(self, review_id: str) -> bool:
        """Whether a version of the review was read and did not come out of the join."""
        done = {record["accepted_offset"] for record in self.out}
        done |= {offset for emission in self.unseen() for _, offset in emission.finished[:1]}
        ledger = self.ledgers[ACCEPTED]
        return any(
            review["review_id"] == review_id
            and ledger.head <= offset < ledger.position
            and offset not in done
            for offset, review in enumerate(self.topics[ACCEPTED])
        )

    def know_what_is_newer(self, again: AnswerAgain) -> None:
        """As the joiner reads it back: what is uncommitted is in no topic."""
        known = self.join.newer
        if known is not None and known.since <= again.enriched_since:
            return
        made = self.join.newer = Newer(again.enriched_since)
        for emission in self.unseen():
            if emission.enriched is not None:
                made.add(emission.review_id, emission.enriched["revision"])
        found = Newer(again.enriched_since)
        for record in self.out[again.enriched_since :]:
            found.add(record["review_id"], record["revision"])
        made.take_in(found)


class Campaigns(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.contents = 0
        self.campaigns = 0

    @rule(review_id=st.sampled_from(IDS))
    def accept(self, review_id: str) -> None:
        self.contents += 1
        self.log.topics[ACCEPTED].append(accepted(review_id, f"content {self.contents:04d}"))

    @rule(task=st.sampled_from(TASKS), data=st.data())
    def enrich(self, task: str, data: st.DataObject) -> None:
        results = self.log.topics[RESULT_OF[task]]
        done = {item["accepted_offset"] for item in results}
        reviews = self.log.topics[ACCEPTED]
        waiting = [offset for offset in range(len(reviews)) if offset not in done]
        # An enricher finishes versions of one review in order.
        first = {reviews[offset]["review_id"]: offset for offset in reversed(waiting)}
        if first:
            offset = data.draw(st.sampled_from(sorted(first.values())))
            results.append(result(reviews[offset], offset))

    @rule(review_id=st.sampled_from(IDS), commits=st.booleans())
    def come_out(self, review_id: str, commits: bool) -> None:
        """A review runs through, up to the joiner's outbox or further."""
        self.accept(review_id)
        reviews = self.log.topics[ACCEPTED]
        for task in TASKS:
            results = self.log.topics[RESULT_OF[task]]
            done = {item["accepted_offset"] for item in results}
            for offset, review in enumerate(reviews):
                if review["review_id"] == review_id and offset not in done:
                    results.append(result(review, offset))
        for topic in (ACCEPTED, *RESULT_OF.values()):
            while self.log.read[topic] < len(self.log.topics[topic]):
                self.log.step(topic)
        if commits:
            self.log.commit()

    @rule(topic=st.sampled_from((ACCEPTED, *RESULT_OF.values(), REPROCESSED)))
    def step(self, topic: str) -> None:
        if self.log.read[topic] < len(self.log.topics[topic]):
            self.log.step(topic)

    @rule()
    def tick(self) -> None:
        self.log.tick()

    @rule()
    def commit(self) -> None:
        self.log.commit()

    @rule()
    def crash(self) -> None:
        self.log.crash()

    @precondition(lambda self: self.log.read[REPROCESSED] < len(self.log.topics[REPROCESSED]))
    @rule()
    def answers_come(self) -> None:
        while self.log.read[REPROCESSED] < len(self.log.topics[REPROCESSED]):
            self.log.step(REPROCESSED)
        self.log.commit()

    @precondition(lambda self: self.log.out)
    @rule(task=st.sampled_from(TASKS), data=st.data())
    def campaign(self, task: str, data: st.DataObject) -> None:
        """Chooses among the latest committed records; answers come in any order."""
        self.campaigns += 1
        latest: dict[str, dict[str, Any]] = {r["review_id"]: r for r in self.log.out}
        enriched_since = len(self.log.out)
        for record in data.draw(st.permutations(sorted(latest.values(), key=str))):
            answer = {
                **result(record, record["accepted_offset"]),
                "lineage": {"campaign": self.campaigns},
            }
            offset = len(self.log.topics[REPROCESSED])
            self.log.topics[REPROCESSED].append(
                AnswerAgain(offset, task, record, answer, (), enriched_since)
            )

    @invariant()
    def newer_content_is_never_covered(self) -> None:
        for review_id in IDS:
            records = [r for r in self.log.out if r["review_id"] == review_id]
            offsets = [record["accepted_offset"] for record in records]
            assert offsets == sorted(offsets)
            revisions = [record["revision"] for record in records]
            assert revisions == sorted(set(revisions))

    def teardown(self) -> None:
        self.log.read_all()
        self.log.commit()
        for again in self.log.topics[REPROCESSED]:
            self.check(again)

    def check(self, again: AnswerAgain) -> None:
        """Out once, unless something of the review came since; and nothing else of it changed."""
        review_id, out = again.enriched["review_id"], self.log.out
        mine = [
            (place, record)
            for place, record in enumerate(out)
            if record["review_id"] == review_id
            and record["tasks"][again.task]["lineage"] == again.result["lineage"]
        ]
        place_of_first = mine[0][0] if mine else None
        since = [
            record
            for place, record in enumerate(out)
            if place >= again.enriched_since
            and record["review_id"] == review_id
            and place != place_of_first
            and (place_of_first is None or place < place_of_first)
        ]
        # Also one that was accepted before, and waits in the joiner.
        newer_accepted = any(
            review["review_id"] == review_id and offset > again.enriched["accepted_offset"]
            for offset, review in enumerate(self.log.topics[ACCEPTED])
        )
        if place_of_first is None:
            assert since or newer_accepted, "an answer done again was dropped for no reason"
            return
        assert not since, "published over something newer"
        first = out[place_of_first]
        for task in TASKS:
            if task != again.task:
                assert first["tasks"][task] == again.enriched["tasks"][task]


TestCampaigns = Campaigns.TestCase
TestCampaigns.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_nothing_is_proven_once_more_came_than_is_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(newer_module, "REVIEWS_AT_MOST", 2)
    log = Log()
    join: PartitionJoin = log.join
    join.newer = Newer(0)
    join.newer.add("x", 1)
    join.newer.add("y", 1)
    review = accepted("a", "content")
    log.topics[ACCEPTED].append(review)
    for task in TASKS:
        log.topics[RESULT_OF[task]].append(result(review, 0))
    log.read_all()
    log.commit()
    again = AnswerAgain(0, "ner", log.out[0], result(review, 0), (), 1)
    assert join.again(again, 0.0).again == ("ner", "unproven")


def test_a_task_that_failed_again_changes_nothing() -> None:
    log = Log()
    review = accepted("a", "content")
    log.topics[ACCEPTED].append(review)
    for task in TASKS:
        log.topics[RESULT_OF[task]].append(result(review, 0))
    log.read_all()
    log.commit()
    log.topics[REPROCESSED].append(
        AnswerAgain(0, "ner", log.out[0], result(review, 0, "FAILED"), (), 1)
    )
    log.read_all()
    log.commit()
    assert len(log.out) == 1
    assert log.ledgers[REPROCESSED].head == 1
