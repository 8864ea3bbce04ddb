"""The consumer loop on a scripted broker: opening, backpressure, faults, rebalances, stopping."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from reviewmesh import metrics
from reviewmesh.kafka import transactions
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Output, Unit
from reviewmesh.loop.brokerwait import NEW_CLIENT_AFTER_S
from reviewmesh.loop.ledger import restore
from reviewmesh.loop.membership import ASSIGNED_WITHIN_S, SlotTaken
from reviewmesh.loop.progress import STANDS_STILL_AFTER_S
from reviewmesh.loop.stalls import StandsStill
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, ENRICHED
from tests.scripted_kafka import ScriptedConsumer
from tests.unit.loop.world import GROUP, PARTITIONS, PREFIX, RESULTS, Scenario, World

LOST = KafkaError(KafkaError._TIMED_OUT, "no answer")
RETRIABLE = KafkaError(KafkaError._TIMED_OUT, "no answer in time", False, True)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def another_member(world: World, slot: str = "1") -> ScriptedConsumer:
    options = {"group.id": GROUP, "group.instance.id": slot, "error_cb": lambda error: None}
    consumer = world.cluster.consumer(options)
    consumer.subscribe([PREFIX + ACCEPTED])
    return consumer


# -- opening ---------------------------------------------------------------------------------


def test_a_partition_is_named_by_a_commit_before_a_record_of_it_is_taken(world: World) -> None:
    """A process that dies of the first record must have said that it runs."""
    world.publish("a")
    world.publish("b", partition=1)
    heads: list[int] = []
    world.stage.at_receive = lambda: heads.append(world.head())

    def scenario() -> Scenario:
        yield world.until_out("a")
        yield world.until_out("b", partition=1)

    world.play(scenario())
    assert heads == [0, 0]
    order = [event for event in world.stage.events if event.endswith("0")]
    assert order == ["load 0", "open 0", "close 0"]


def test_offsets_of_the_last_owner_s_open_transaction_are_waited_for(world: World) -> None:
    world.publish("a", "b")
    other = another_member(world)
    with world.cluster.lock:
        other.poll(0)
    producer = world.cluster.producer({"transactional.id": "other", "on_delivery": print})
    producer.init_transactions()
    producer.begin_transaction()
    world.cluster.groups[GROUP].committed.clear()
    [first, *_] = other.assigned
    at = [TopicPartition(*first, 1, "")]
    producer.send_offsets_to_transaction(at, other.consumer_group_metadata())
    other.close()

    def scenario() -> Scenario:
        yield world.after(3)
        assert "committed offsets" in world.loop.readiness.waiting_for
        assert "open 0" not in world.stage.events
        producer.commit_transaction()
        yield world.until_out("b")

    world.play(scenario())


def test_a_load_that_fails_is_begun_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish("a")
    world.cluster.fail("offsets_for_times", LOST, times=2)

    def scenario() -> Scenario:
        yield world.until_out("a")

    world.play(scenario())
    assert world.stage.events.count("load 0") == 1


def test_a_commit_below_the_start_of_the_log_goes_on_where_the_log_starts(world: World) -> None:
    world.publish("a", "b", "c")
    counter = metrics.SKIPPED_OFFSETS.labels("echo", ACCEPTED)
    before = counter._value.get()
    world.cluster.groups[GROUP].committed[PREFIX + ACCEPTED, 0] = (0, "")
    world.cluster.delete_records(PREFIX + ACCEPTED, 0, 2)

    def scenario() -> Scenario:
        yield world.until_out("c")

    world.play(scenario())
    assert counter._value.get() - before == 2


# -- backpressure ----------------------------------------------------------------------------


def test_an_input_that_is_full_is_paused_and_resumed_with_slack_only(world: World) -> None:
    world.stage.holds = True

    def scenario() -> Scenario:
        yield lambda: world.head() == 0 and not world.is_paused()
        world.publish(*"123456789")
        yield world.until_received(8)
        yield lambda: world.is_paused()
        # The one that was held takes the place; then there is room, but no slack.
        for finished in (1, 2):
            world.loop._outbox.add(world.stage.finish(1))
            yield lambda: len(world.out()) == finished  # noqa: B023 - waited for at once
            yield world.after(0.1)
            assert world.is_paused()
        assert len(world.stage.received) == 9
        world.loop._outbox.add(world.stage.finish(1))
        yield lambda: not world.is_paused()
        world.stage.holds = False
        yield world.until_out(*"123456789")

    world.play(scenario())


def test_what_a_stage_blocks_is_paused_until_it_does_no_more(world: World) -> None:
    def scenario() -> Scenario:
        yield lambda: world.head() == 0 and not world.is_paused()
        world.stage.blocked = True
        yield lambda: world.is_paused() and world.is_paused(1, RESULTS)
        world.publish("a")
        yield world.after(1)
        assert world.stage.received == []
        world.stage.blocked = False
        yield world.until_out("a")

    world.play(scenario())


def test_a_record_that_cannot_be_judged_now_is_tried_again(world: World) -> None:
    world.publish("a", "b")
    world.stage.away = True

    def scenario() -> Scenario:
        yield lambda: "the registry is away" in world.loop.readiness.waiting_for
        yield world.after(5)
        assert world.out() == []
        world.stage.away = False
        yield world.until_out("a", "b")
        assert not world.loop.readiness.is_waiting_for("records")

    world.play(scenario())
    assert world.stage.received == [b"a", b"b"]


def test_what_a_stage_cannot_take_is_a_dead_letter(world: World) -> None:
    world.publish("a", "bad", "c")
    world.stage.raises_over = b"bad"

    def scenario() -> Scenario:
        yield world.until_out("a", "c")
        yield world.until_read()

    world.play(scenario())
    assert world.out(topic=DEAD_LETTER) == ["bad"]


def test_records_that_take_long_do_not_keep_the_loop_from_turning(world: World) -> None:
    """A stranger's schema may make each record of a small batch take a second."""
    values = [f"{number:02}" for number in range(40)]
    gaps: list[float] = []
    world.stage.max_in_flight = len(values)

    def takes_long() -> None:
        world.clock.advance(1.5)
        gaps.append(world.clock.now - world.loop.heartbeat)

    world.stage.at_receive = takes_long
    world.publish(*values)
    world.publish(*values, partition=1)

    def scenario() -> Scenario:
        yield world.until_out(*values)
        yield world.until_out(*values, partition=1)

    world.play(scenario())
    assert max(gaps) < 5


# -- transactions ----------------------------------------------------------------------------


def test_after_a_fenced_producer_the_loop_rewinds_and_nothing_comes_twice(world: World) -> None:
    world.publish("a", "b")
    world.stage.holds = True

    def scenario() -> Scenario:
        yield world.until_received(2)
        world.cluster.fence_producers()
        world.stage.holds = False
        yield world.until_out("a", "b")
        yield world.until_read()

    world.play(scenario())
    assert world.stage.received == [b"a", b"b"] * 2
    assert world.out() == ["a", "b"]


@pytest.mark.parametrize("applied", [True, False])
def test_a_commit_whose_outcome_is_unknown_is_told_by_the_committed_offsets(
    world: World, applied: bool
) -> None:
    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        world.cluster.fail("commit_transaction", LOST, applied=applied)
        world.publish("a", "b", "c")
        yield world.until_read()

    world.play(scenario())
    assert world.out() == ["a", "b", "c"]


def test_a_commit_that_takes_long_is_asked_again(world: World) -> None:
    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        world.cluster.fail("commit_transaction", RETRIABLE, times=2, applied=True)
        world.publish("a", "b")
        yield world.until_read()

    world.play(scenario())
    assert world.out() == ["a", "b"]
    assert world.stage.received == [b"a", b"b"]


def test_a_stale_generation_aborts_and_the_same_work_is_committed_later(world: World) -> None:
    aborted = KafkaError(KafkaError.ILLEGAL_GENERATION, None, False, False, True)

    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        world.cluster.fail("send_offsets_to_transaction", aborted, times=6)
        world.publish("a", "b")
        yield lambda: world.loop.readiness.is_waiting_for("transactions")
        yield world.until_out("a", "b")

    world.play(scenario())
    assert world.stage.received == [b"a", b"b"], "nothing was read again"
    assert world.loop.readiness.waiting_for == ""


def test_an_output_that_is_refused_is_found_and_its_record_set_aside(world: World) -> None:
    refused = KafkaError(KafkaError.INVALID_RECORD)
    letters = PREFIX + DEAD_LETTER
    world.cluster.refuse = lambda topic, value: (
        refused if value == b"5" and topic != letters else None
    )
    values = [str(number) for number in range(8)]
    world.stage.holds = True
    world.publish(*values)

    def scenario() -> Scenario:
        yield world.until_received(8)
        world.stage.holds = False
        yield world.until_read()

    world.play(scenario())
    assert world.out() == [value for value in values if value != "5"]
    assert world.out(topic=DEAD_LETTER) == ["5"]
    [reason] = world.stage.refused
    assert ENRICHED in reason


def test_a_dead_letter_that_is_refused_waits_and_holds_nothing_up(world: World) -> None:
    refused = KafkaError(KafkaError.INVALID_RECORD)
    letters = PREFIX + DEAD_LETTER
    world.cluster.refuse = lambda topic, value: refused if topic == letters else None
    world.stage.raises_over = b"bad"
    world.publish("a", "bad", "c")

    def scenario() -> Scenario:
        yield world.until_out("a", "c")
        yield lambda: world.loop.readiness.is_waiting_for("dead letters")
        assert world.head() == 1
        world.publish("d")
        yield world.until_out("a", "c", "d")
        world.cluster.refuse = lambda topic, value: None
        yield world.until_read()
        yield lambda: not world.loop.readiness.is_waiting_for("dead letters")

    world.play(scenario())
    assert world.out(topic=DEAD_LETTER) == ["bad"]


@pytest.mark.parametrize("by_the_loop", [True, False])
def test_a_refused_dead_letter_with_a_result_beside_it_holds_nothing_up(
    world: World, by_the_loop: bool
) -> None:
    """As an enricher writes them: the review still comes out, without an answer."""
    refused = KafkaError(KafkaError.INVALID_RECORD)
    letters = PREFIX + DEAD_LETTER
    # What the stage writes is refused first, or what is written in its place.
    over = letters if by_the_loop else PREFIX + ENRICHED
    world.cluster.refuse = lambda topic, value: (
        refused if topic in (letters, over) and value == b"bad" else None
    )
    if by_the_loop:
        world.stage.raises_over = b"bad"
    world.stage.answers_set_aside = True
    counter = metrics.SET_ASIDE.labels("echo", "aborted")
    before = counter._value.get()
    world.publish("a", "bad", "c")

    def scenario() -> Scenario:
        yield world.until_out("a", "c")
        yield lambda: world.loop.readiness.is_waiting_for("dead letters")
        world.publish("d")
        yield world.until_out("a", "c", "d")
        yield world.after(3)
        assert counter._value.get() - before <= 1
        world.cluster.refuse = lambda topic, value: None
        yield world.until_read()
        yield lambda: not world.loop.readiness.is_waiting_for("dead letters")

    world.play(scenario())
    assert world.out(topic=DEAD_LETTER) == ["bad"]
    assert world.out() == ["a", "c", "d", "no answer"]


# -- units that finish no record -------------------------------------------------------------


def aside(value: str, **more: Any) -> Unit:
    return Unit(0, (), (Output(ENRICHED, 0, b"key", value.encode()),), **more)


def test_a_unit_that_finishes_no_record_is_written_by_the_owner_only(world: World) -> None:
    """Nothing is to be committed for it, and yet the group is asked."""
    aborted = KafkaError(KafkaError.ILLEGAL_GENERATION, None, False, False, True)
    counter = metrics.TRANSACTIONS_ABORTED.labels("echo")
    before = counter._value.get()

    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        world.cluster.fail("send_offsets_to_transaction", aborted)
        world.stage.aside.append(aside("a"))
        yield world.until_out("a")

    world.play(scenario())
    assert counter._value.get() - before == 1


def test_what_seals_a_transaction_is_written_with_its_units(world: World) -> None:
    aborted = KafkaError(KafkaError.ILLEGAL_GENERATION, None, False, False, True)
    done: list[str] = []

    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        world.cluster.fail("send_offsets_to_transaction", aborted)
        world.stage.aside += [
            aside(value, carries=value, committed=partial(done.append, value)) for value in "ab"
        ]
        yield world.until_out("a", "b")
        world.stage.aside.append(aside("c"))
        yield world.until_out("a", "b", "c")

    world.play(scenario())
    assert world.out(topic=DEAD_LETTER) == ["2"]
    assert done == ["a", "b"]


def test_a_unit_that_finishes_no_record_is_given_up_where_it_is_refused(world: World) -> None:
    refused = KafkaError(KafkaError.INVALID_RECORD)
    world.cluster.refuse = lambda topic, value: refused if value == b"bad" else None
    told: list[str] = []
    world.publish("a")

    def scenario() -> Scenario:
        yield world.until_out("a")
        world.stage.aside += [aside("bad", refused=told.append), aside("good")]
        yield world.until_out("a", "good")

    world.play(scenario())
    [reason] = told
    assert ENRICHED in reason
    assert world.out(topic=DEAD_LETTER) == []


@pytest.mark.parametrize("deadline", ["TRANSACTION_DEADLINE_S", "CALL_DEADLINE_S"])
def test_a_call_that_never_returns_is_left_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, deadline: str
) -> None:
    monkeypatch.setattr(transactions, deadline, 0.2)
    let_go = threading.Event()

    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        first = next(iter(world.cluster.epochs.values()))
        first.begin_transaction = let_go.wait  # type: ignore[assignment, method-assign]
        world.publish("a")
        yield world.until_out("a")

    try:
        world.play(scenario())
    finally:
        let_go.set()


# -- rebalances ------------------------------------------------------------------------------


def test_what_is_finished_is_committed_when_a_partition_is_revoked(world: World) -> None:
    world.publish("a")
    world.publish("b", partition=1)
    world.stage.holds = True

    def scenario() -> Scenario:
        yield world.until_received(2)
        world.stage.holds = False
        other = another_member(world)
        other.poll(0)
        yield lambda: sum(event.startswith("close") for event in world.stage.events) == 1
        given = 1 if "close 1" in world.stage.events else 0
        assert world.head(given) == 1
        other.poll(0)
        assert [number for _, number in other.assigned] == [given]
        other.close()
        yield lambda: world.stage.events.count(f"open {given}") == 2
        yield world.until_read(0)
        yield world.until_read(1)

    world.play(scenario())
    assert [*world.out(0), *world.out(1)] == ["a", "b"]


def test_what_was_in_flight_in_a_lost_partition_is_dropped_and_read_again(world: World) -> None:
    world.publish("a", "b")
    world.stage.holds = True

    def scenario() -> Scenario:
        yield world.until_received(2)
        world.loop._outbox.add(world.stage.finish(1))
        world.cluster.expel(world.consumer)
        world.stage.holds = False
        yield world.until_read()

    world.play(scenario())
    assert world.out() == ["a", "b"]


def test_a_partition_that_was_lost_and_comes_back_counts_as_no_death(world: World) -> None:
    """Nobody died: the same process goes on with the same records, however often."""
    world.publish("a", "b")
    world.stage.holds = True

    def scenario() -> Scenario:
        yield world.until_received(2)
        for times in range(2, 14):
            world.cluster.expel(world.consumer)
            yield world.until_received(2 * times)
        found = world.cluster.committed(GROUP, PREFIX + ACCEPTED, 0)
        assert found is not None
        assert restore(*found).notes.deaths == 0
        world.stage.holds = False
        yield world.until_read()

    world.play(scenario())
    assert world.out() == ["a", "b"]
    assert world.out(topic=DEAD_LETTER) == []


def test_a_consumer_that_is_fenced_joins_again_but_not_for_ever(world: World) -> None:
    """A broker's restart may do it; a process with the same slot does it every time."""
    world.publish("a")

    def scenario() -> Scenario:
        yield world.until_read()
        for turn in range(3):
            another_member(world, "0").poll(0)
            world.publish(f"{turn}")
            world.cluster.groups[GROUP].members.clear()
            world.cluster.groups[GROUP].holders.clear()
            yield world.until_read()
        another_member(world, "0").poll(0)
        yield world.after(20)

    with pytest.raises(SlotTaken, match="expected a REVIEWMESH_SLOT of its own"):
        world.play(scenario())
    assert world.out() == ["a", "0", "1", "2"]


def test_a_consumer_that_gets_no_partitions_is_replaced(world: World) -> None:
    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        left_out = world.consumer
        world.cluster.expel(left_out)
        left_out.subscription = ["unknown"]
        yield world.after(1)
        world.clock.advance(ASSIGNED_WITHIN_S - 2)
        yield world.after(0.1)
        assert world.loop.readiness.is_waiting_for("assignment")
        assert left_out is world.consumer
        yield lambda: world.consumer is not left_out
        world.publish("a")
        yield world.until_out("a")

    world.play(scenario())


# -- a broker that is away -------------------------------------------------------------------


def test_a_consumer_without_addresses_is_replaced_once_a_new_client_is_answered(
    world: World,
) -> None:
    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        world.cluster.away = True
        yield lambda: world.loop.readiness.is_waiting_for("broker")
        lost = world.consumer
        world.cluster.lose_addresses()
        yield world.after(2 * NEW_CLIENT_AFTER_S)
        assert world.consumer is lost, "nobody is answered: the broker is away"
        world.cluster.away = False
        world.publish("a")
        yield lambda: world.consumer is not lost
        yield world.until_out("a")
        yield lambda: not world.loop.readiness.is_waiting_for("broker")

    world.play(scenario())


def test_a_consumer_without_addresses_is_replaced_also_where_the_producer_is_new(
    world: World,
) -> None:
    """A transaction was under way when the broker went: its producer is replaced, and finds the
    broker."""

    def scenario() -> Scenario:
        lost = world.consumer
        world.stage.holds = True
        world.publish("a")
        yield world.until_received(1)
        world.cluster.lose_addresses()
        world.stage.holds = False
        yield lambda: "a new producer" in world.loop.readiness.waiting_for
        yield world.until_out("a")
        assert world.consumer is not lost
        yield lambda: not world.loop.readiness.is_waiting_for("broker")

    world.play(scenario())


def test_a_broker_that_is_back_is_noticed_without_a_new_consumer(world: World) -> None:
    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        consumer = world.consumer
        world.cluster.away = True
        yield lambda: world.loop.readiness.is_waiting_for("broker")
        world.cluster.away = False
        world.publish("a")
        yield world.until_out("a")
        yield lambda: not world.loop.readiness.is_waiting_for("broker")
        assert world.consumer is consumer

    world.play(scenario())


# -- what stands still, logs that move -------------------------------------------------------


def test_a_partition_that_stands_still_is_reopened_and_then_the_process_ends(world: World) -> None:
    world.stage.holds = True
    world.publish("a")

    def scenario() -> Scenario:
        yield world.until_received(1)
        yield world.after(2)
        world.clock.advance(STANDS_STILL_AFTER_S)
        yield world.until_received(2)
        assert world.loop.readiness.is_waiting_for("progress")
        assert world.stage.events[-2:] == ["load 0", "open 0"]
        yield world.after(2)
        world.clock.advance(STANDS_STILL_AFTER_S)
        yield world.after(5)

    with pytest.raises(StandsStill, match="offset 0 is in flight"):
        world.play(scenario())


def test_what_waits_for_a_reason_is_left_alone(world: World) -> None:
    world.stage.holds = True
    world.stage.reason = "no worker is there"
    world.publish("a")

    def scenario() -> Scenario:
        yield world.until_received(1)
        yield world.after(2)
        world.clock.advance(10 * STANDS_STILL_AFTER_S)
        yield world.after(2)
        assert world.stage.events.count("open 0") == 1
        world.stage.holds = False
        yield world.until_out("a")

    world.play(scenario())


def test_offsets_that_are_deleted_unread_are_gone_past_and_counted(world: World) -> None:
    counter = metrics.SKIPPED_OFFSETS.labels("echo", ACCEPTED)
    before = counter._value.get()

    def scenario() -> Scenario:
        world.publish("a")
        yield world.until_read()
        world.stage.blocked = True
        yield world.is_paused
        world.publish("b", "c", "d")
        world.cluster.delete_records(PREFIX + ACCEPTED, 0, 3)
        world.stage.blocked = False
        yield world.until_out("a", "d")
        yield lambda: counter._value.get() - before == 2

    world.play(scenario())


def test_a_log_that_ends_before_what_was_read_is_opened_again(world: World) -> None:
    def scenario() -> Scenario:
        world.publish("a", "b")
        yield world.until_read()
        # It was seen that far.
        place = MeshPartition(ACCEPTED, 0)
        yield (
            lambda: (
                place in world.loop._watch.seen.logs
                and (world.loop._watch.seen.logs[place].end == 2)
            )
        )
        yield world.after(2)
        world.cluster.truncate(PREFIX + ACCEPTED, 0, 1)
        yield lambda: world.stage.events.count("open 0") == 2

    world.play(scenario())


def test_a_topic_made_anew_is_read_from_its_beginning_with_a_new_consumer(world: World) -> None:
    def scenario() -> Scenario:
        world.publish("a", "b")
        yield world.until_read()
        yield world.after(1)
        before = world.consumer
        world.cluster.create(PREFIX + ACCEPTED, PARTITIONS)
        yield lambda: world.consumer is not before
        world.publish("c", "d", "e")
        yield world.until_out("a", "b", "c", "d", "e")
        yield world.until_read()

    world.play(scenario())


def test_a_topic_that_is_missing_is_named(world: World) -> None:
    def scenario() -> Scenario:
        yield lambda: world.head() == 0
        del world.cluster.topics[PREFIX + ENRICHED]
        yield lambda: f"topics missing: {PREFIX}{ENRICHED}" in world.loop.readiness.waiting_for
        world.cluster.create(PREFIX + ENRICHED, PARTITIONS)
        yield lambda: not world.loop.readiness.is_waiting_for("topics")

    world.play(scenario())


# -- stopping --------------------------------------------------------------------------------


def test_a_stop_finishes_what_is_in_flight_and_takes_nothing_new(world: World) -> None:
    world.stage.holds = True
    world.publish("a", "b")

    def scenario() -> Scenario:
        yield world.until_received(2)
        world.loop.request_stop()
        yield world.after(0.5)
        world.publish("c")
        yield world.after(0.5)
        world.stage.holds = False
        yield lambda: False

    world.play(scenario())
    assert world.out() == ["a", "b"]
    assert world.head() == 2
    assert "stop" in world.stage.events


def test_a_stop_waits_no_longer_than_its_grace(world: World) -> None:
    world.stage.holds = True
    world.publish("a", "b")

    def scenario() -> Scenario:
        yield world.until_received(2)
        world.loop._outbox.add(world.stage.finish(1))

    began = world.clock.now
    world.play(scenario())
    assert world.out() == ["a"]
    assert world.head() == 1
    assert 5 <= world.clock.now - began < 10
