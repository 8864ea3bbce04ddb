"""Reviews that later ones overtook: whether their results still come is asked, not guessed."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from reviewmesh.join.state import JoinWindows, Questions
from reviewmesh_schemas.names import TASKS
from tests.unit.join.test_join import HOUR, MANY, JoinMachine, Partition, statuses

NOTHING = Questions()
ENRICHER = Questions(ledgers=frozenset({"sentiment"}))
ENDS = Questions(ends=frozenset({"sentiment"}))


def without_sentiment(partition: Partition) -> int:
    offset = partition.add("slow", "text")
    partition.answer("ner", offset)
    partition.answer("topic", offset)
    return offset


def overtake(partition: Partition, seconds: int) -> Questions:
    """Results for later reviews keep coming, one a second; gives what is to be known by then."""
    questions = NOTHING
    for _ in range(seconds):
        offset = partition.add(f"later{partition.now}", "text")
        for task in TASKS:
            partition.answer(task, offset)
        partition.now += 1
        partition.read_all()
        for task in TASKS:
            partition.join.read_to_end(task, partition.now)
        questions = partition.tick()
    partition.commit()
    return questions


def published(partition: Partition) -> set[str]:
    return {record["review_id"] for record in partition.out}


def test_what_the_enricher_has_not_finished_is_on_its_way_for_as_long_as_max_wait() -> None:
    partition = Partition()
    offset = without_sentiment(partition)
    assert overtake(partition, 55) == NOTHING, "nobody is asked over what is late by a moment"
    assert overtake(partition, 10) == ENRICHER
    for _ in range(10):
        partition.ask_enricher("sentiment")
        assert overtake(partition, 60) == ENRICHER
    assert "slow" not in published(partition)
    partition.answer("sentiment", offset)
    partition.read_all()
    partition.commit()
    assert "slow" in published(partition)
    assert all(record["complete"] for record in partition.out)


def test_max_wait_decides_where_the_enricher_never_finishes() -> None:
    partition = Partition()
    without_sentiment(partition)
    partition.now += 6 * HOUR
    overtake(partition, 1)
    slow = next(record for record in partition.out if record["review_id"] == "slow")
    assert statuses(slow) == {"ner": "OK", "topic": "OK", "sentiment": "TIMEOUT"}


def test_a_result_that_is_gone_is_given_up_once_the_end_of_its_topic_was_read() -> None:
    partition = Partition()
    offset = without_sentiment(partition)
    assert overtake(partition, 65) == ENRICHER
    partition.lost["sentiment"].add(offset)
    partition.now += 1
    partition.ask_enricher("sentiment")
    assert partition.tick() == ENDS, "the end that was read before proves nothing"
    partition.commit()
    assert "slow" not in published(partition)
    partition.now += 1
    partition.join.read_to_end("sentiment", partition.now)
    assert partition.tick() == NOTHING
    partition.commit()
    slow = next(record for record in partition.out if record["review_id"] == "slow")
    assert statuses(slow) == {"ner": "OK", "topic": "OK", "sentiment": "TIMEOUT"}


def test_a_result_that_was_written_and_not_read_yet_is_no_loss() -> None:
    partition = Partition()
    offset = without_sentiment(partition)
    overtake(partition, 65)
    partition.answer("sentiment", offset)
    partition.now += 1
    partition.ask_enricher("sentiment")
    assert partition.tick() == ENDS
    partition.read_all()
    partition.now += 1
    partition.join.read_to_end("sentiment", partition.now)
    partition.tick()
    partition.commit()
    assert "slow" in published(partition)
    assert all(record["complete"] for record in partition.out)


def test_an_hour_without_workers_is_no_time_of_flow() -> None:
    partition = Partition()
    offset = without_sentiment(partition)
    overtake(partition, 5)
    partition.now += HOUR
    assert overtake(partition, 3) == NOTHING
    partition.answer("sentiment", offset)
    partition.read_all()
    partition.commit()
    assert all(record["complete"] for record in partition.out)


class HealthyMachine(JoinMachine):
    """However long a result is on its way, and whatever overtakes it: every record is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.partition = Partition(JoinWindows(1000 * HOUR, straggler_s=0.5, late_window_s=HOUR))

    @rule(review_ids=st.text("abc", min_size=1, max_size=5), ask=st.booleans())
    def results_flow(self, review_ids: str, ask: bool) -> None:
        """The newest review is answered at once, and overtakes all that wait."""
        partition = self.partition
        for review_id in review_ids:
            self.accept(review_id)
            for task in TASKS:
                partition.answer(task, self.unanswered[task].pop())
            partition.now += 1
            partition.read_all()
        if ask:
            for task in TASKS:
                partition.ask_enricher(task)
        partition.tick()

    @rule()
    def everything_is_read(self) -> None:
        self.partition.now += 1
        self.partition.read_all()
        for task in TASKS:
            self.partition.join.read_to_end(task, self.partition.now)
        self.partition.tick()


HealthyMachine.TestCase.settings = MANY
TestHealthy = HealthyMachine.TestCase
