"""A consumer loop with its time and its broker in the hands of a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from time import monotonic as real_monotonic
from typing import Any

import pytest
import structlog

from reviewmesh.kafka import logwatch
from reviewmesh.kafka.batches import ReadResult
from reviewmesh.kafka.record import Output, Record, Unavailable, Unit
from reviewmesh.loop import openings
from reviewmesh.loop.loop import ConsumerLoop
from reviewmesh.loop.stage import Ledgers, Start
from reviewmesh.settings import KafkaSettings, Settings
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, ENRICHED
from tests.scripted_kafka import Clock, Cluster, ScriptedConsumer

PREFIX = "t."
RESULTS = "reviews.ner"
PARTITIONS = 2
GROUP = f"{PREFIX}reviewmesh-echo"
# Of the test's time, at each poll.
TURN_S = 0.01
# Of real time: only a test that fails takes it.
HANGS_AFTER_S = 60.0

Condition = Callable[[], bool]
Scenario = Iterator[Condition]


class Echo:
    """A stage that writes what it reads to `reviews.enriched`, when a test lets it."""

    service = "echo"
    topics: tuple[str, ...] = (ACCEPTED, RESULTS)
    state_topics: tuple[str, ...] = ()
    max_in_flight = 8
    max_window = 16

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received: list[bytes | None] = []
        self.in_hand: list[Record] = []
        self.holds = False
        self.blocked = False
        self.away = False
        self.raises_over: bytes | None = None
        # A record that is set aside is answered all the same, beside its dead letter.
        self.answers_set_aside = False
        # Units that finish no record.
        self.aside: list[Unit] = []
        # Why records' units were refused.
        self.refused: list[str] = []
        self.reason = ""
        self.at_receive: Callable[[], None] = lambda: None

    def load(self, partition: int, starts: dict[str, Start]) -> Any:
        self.events.append(f"load {partition}")
        return partition

    def open(self, partition: int, ledgers: Ledgers, loaded: Any) -> None:
        assert loaded == partition
        self.events.append(f"open {partition}")

    def close(self, partition: int) -> None:
        self.events.append(f"close {partition}")
        self.in_hand = [record for record in self.in_hand if record.partition != partition]

    def receive(self, record: Record) -> None:
        self.at_receive()
        if self.away:
            raise Unavailable("the registry is away")
        if record.value is not None and record.value == self.raises_over:
            raise ValueError("cannot be taken")
        self.received.append(record.value)
        self.in_hand.append(record)

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        letter = Output(DEAD_LETTER, record.partition, record.key, record.value)
        answer = letter._replace(topic=ENRICHED, value=b"no answer")
        return (answer, letter) if self.answers_set_aside else (letter,)

    def poll(self) -> Sequence[Unit]:
        aside, self.aside = self.aside, []
        return aside if self.holds else [*aside, *self.finish(len(self.in_hand))]

    def finish(self, count: int) -> list[Unit]:
        done, self.in_hand = self.in_hand[:count], self.in_hand[count:]
        return [
            Unit(
                record.partition,
                ((record.topic, record.offset),),
                (Output(ENRICHED, record.partition, record.key, record.value),),
                refused=self.refused.append,
            )
            for record in done
        ]

    def transaction_outputs(self, units: Sequence[Unit]) -> Sequence[Output]:
        """How many units of each partition carry something."""
        counts = Counter(unit.partition for unit in units if unit.carries)
        return [
            Output(DEAD_LETTER, partition, None, str(count).encode())
            for partition, count in counts.items()
        ]

    def blocks(self, topic: str, partition: int) -> bool:
        return self.blocked

    def waiting_for(self) -> str:
        return ""

    def waits_for(self, topic: str, partition: int) -> str:
        return self.reason

    def idle(self) -> bool:
        return not self.in_hand

    def stop(self) -> None:
        self.events.append("stop")


class NothingImpassable:
    """In place of the process that reads ahead: it would need a broker of its own."""

    def __init__(self, settings: Settings, topic: str, partition: int) -> None:
        self.looked_at = (topic, partition)

    def __enter__(self) -> NothingImpassable:
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def read(self, at: int, fetch_bytes: int, at_most: int) -> ReadResult:
        return ReadResult(next=at)


class World:
    """One process; a second one on the same cluster is its successor."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, cluster: Cluster | None = None, grace_s: float = 5.0
    ) -> None:
        if cluster is None:
            cluster = Cluster(Clock())
            for topic in (ACCEPTED, RESULTS, ENRICHED, DEAD_LETTER):
                cluster.create(PREFIX + topic, PARTITIONS)
        cluster.install(monkeypatch)
        monkeypatch.setattr(logwatch, "EVERY_S", 0.01)
        monkeypatch.setattr(openings, "Prober", NothingImpassable)
        assert cluster.clock is not None
        self.cluster, self.clock = cluster, cluster.clock
        self.stage = Echo()
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers="broker.invalid:9092"),
            prefix=PREFIX,
            slot="0",
            grace_s=grace_s,
        )
        topics = (ACCEPTED, RESULTS, ENRICHED, DEAD_LETTER)
        self.loop = ConsumerLoop(self.stage, settings, topics, structlog.get_logger())

    def play(self, scenario: Scenario) -> None:
        """Run the loop; each condition that the scenario gives is waited for, and after the last
        one the loop is stopped. Raises what the loop raises."""
        waits: Condition | None = None
        ended = turns = False
        deadline = real_monotonic() + HANGS_AFTER_S

        def turn() -> None:
            nonlocal waits, ended, turns
            if turns:
                # A consumer of the scenario's own polls.
                return
            turns = True
            self.clock.advance(TURN_S)
            assert real_monotonic() < deadline, f"still not: line {_line_of(scenario)}"
            while not ended and (waits is None or waits()):
                waits = next(scenario, None)
                if waits is None:
                    ended = True
                    self.loop.request_stop()
            turns = False

        self.cluster.on_poll = turn
        self.loop.run()

    @property
    def consumer(self) -> ScriptedConsumer:
        """The loop's, as it is now."""
        made = [each for each in self.cluster.clients if isinstance(each, ScriptedConsumer)]
        return [each for each in made if each.subscription and each.instance == "0"][-1]

    def publish(self, *values: str, partition: int = 0, topic: str = ACCEPTED) -> None:
        for value in values:
            self.cluster.append(PREFIX + topic, partition, value.encode(), b"key")

    def out(self, partition: int = 0, topic: str = ENRICHED) -> list[str]:
        records = self.cluster.records(PREFIX + topic, partition)
        return [(value or b"").decode() for value in records]

    def head(self, partition: int = 0, topic: str = ACCEPTED) -> int:
        """The offset that the group has committed; -1 for none."""
        return (self.cluster.committed(GROUP, PREFIX + topic, partition) or (-1, ""))[0]

    def is_paused(self, partition: int = 0, topic: str = ACCEPTED) -> bool:
        return (PREFIX + topic, partition) in self.consumer.paused

    def until_out(self, *values: str, partition: int = 0) -> Condition:
        return lambda: self.out(partition) == list(values)

    def until_received(self, count: int) -> Condition:
        return lambda: len(self.stage.received) >= count

    def until_read(self, partition: int = 0, topic: str = ACCEPTED) -> Condition:
        """Until everything is committed, to the end."""
        return lambda: (
            self.head(partition, topic) == self.cluster.log((PREFIX + topic, partition)).end
        )

    def after(self, seconds: float) -> Condition:
        until = self.clock.now + seconds
        return lambda: self.clock.now >= until


def _line_of(scenario: Any) -> object:
    frame = scenario.gi_frame
    return frame and frame.f_lineno
