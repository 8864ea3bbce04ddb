"""Kafka in memory, with the part of confluent_kafka's interface that the mesh uses.

Not a broker: one process, one moment. What it does without being told is what the real client and
broker do (`tests/integration/test_kafka_contract.py` asks the same of both); what it does on top is
what a script says, so that a test can have a fenced producer or a lost answer where it wants it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    Uuid,
)

from reviewmesh.kafka import clients

Place = tuple[str, int]
Headers = Sequence[tuple[str, bytes | None]]
EARLIEST_MS = 1_700_000_000_000
# A poll without a record: long enough for other threads to get their turn.
IDLE_S = 0.001


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Transaction:
    state: Literal["open", "committed", "aborted"] = "open"
    written: set[Place] = field(default_factory=set)
    # By group and place: offset and metadata.
    offsets: dict[tuple[str, Place], tuple[int, str]] = field(default_factory=dict)


@dataclass
class Entry:
    """A record, or the marker that ends a transaction."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    transaction: Transaction | None
    is_marker: bool = False

    @property
    def is_open(self) -> bool:
        return self.transaction is not None and self.transaction.state == "open"

    def is_visible(self, committed_only: bool) -> bool:
        if self.is_marker:
            return False
        state = "committed" if self.transaction is None else self.transaction.state
        return state == "committed" or not committed_only


@dataclass
class Log:
    """One partition."""

    entries: list[Entry] = field(default_factory=list)
    start: int = 0
    end: int = 0

    def stable(self) -> int:
        return next((entry.offset for entry in self.entries if entry.is_open), self.end)

    def append(self, **fields: Any) -> int:
        fields.setdefault("timestamp_ms", EARLIEST_MS + self.end)
        self.entries.append(Entry(self.end, **fields))
        self.end += 1
        return self.end - 1

    def delete_before(self, offset: int) -> None:
        self.start = offset
        self.entries = [entry for entry in self.entries if entry.offset >= offset]


@dataclass
class Topic:
    logs: list[Log]
    id: Uuid


@dataclass
class Group:
    """Members hold places; a place changes hands once its holder has let go of it."""

    committed: dict[Place, tuple[int, str]] = field(default_factory=dict)
    members: list[ScriptedConsumer] = field(default_factory=list)
    holders: dict[Place, ScriptedConsumer] = field(default_factory=dict)
    targets: dict[Place, ScriptedConsumer] = field(default_factory=dict)
    generation: int = 0


class Cluster:
    """The broker. A script makes it fail: `fail`, `away`, `lose_addresses`, `expel`, `refuse`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.topics: dict[str, Topic] = {}
        self.groups: defaultdict[str, Group] = defaultdict(Group)
        self.epochs: dict[str, ScriptedProducer] = {}
        self.away = False
        self.clients: list[Client] = []
        self.refuse: Callable[[str, bytes | None], KafkaError | None] = lambda topic, value: None
        self._failures: defaultdict[str, list[tuple[KafkaError, bool]]] = defaultdict(list)
        # Called at each `consume` of a group's member, before anything else.
        self.on_poll: Callable[[], None] = lambda: None

    # -- what a test does to it --------------------------------------------------------------

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the mesh's own factories make these clients; their time is this clock's."""
        monkeypatch.setattr(clients, "Consumer", self.consumer)
        monkeypatch.setattr(clients, "Producer", self.producer)
        monkeypatch.setattr(clients, "AdminClient", self.admin)
        if self.clock is not None:
            monkeypatch.setattr(time, "monotonic", self.clock)

    def create(self, topic: str, partitions: int) -> None:
        """Also in place of one that was there: that is how a topic is made anew."""
        with self.lock:
            fresh = uuid.uuid4().int
            topic_id = Uuid(fresh >> 65, (fresh & ((1 << 64) - 1)) >> 1)
            self.topics[topic] = Topic([Log() for _ in range(partitions)], topic_id)

    def append(
        self, topic: str, partition: int, value: bytes | None, key: bytes | None = None
    ) -> int:
        """As a producer without transactions; gives the offset."""
        with self.lock:
            log = self.log((topic, partition))
            return log.append(key=key, value=value, headers=(), transaction=None)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        with self.lock:
            self.log((topic, partition)).delete_before(before)

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """As the election of a leader that lacked records does."""
        with self.lock:
            log = self.log((topic, partition))
            log.entries = [entry for entry in log.entries if entry.offset < end]
            log.end = end

    def fail(self, call: str, error: KafkaError, times: int = 1, applied: bool = False) -> None:
        """Let the next calls of that name raise; `applied`: it takes effect, its answer is lost."""
        with self.lock:
            self._failures[call] += [(error, applied)] * times

    def lose_addresses(self) -> None:
        """No client of now finds the broker any more; those that are made later do."""
        for client in self.clients:
            client.is_lost = True

    def fence_producers(self) -> None:
        """As somebody does who starts producers with the same transactional ids."""
        with self.lock:
            for name in self.epochs:
                self.take_over(name, self.producer({"transactional.id": name}))

    def expel(self, consumer: ScriptedConsumer) -> None:
        """Its session is over: its partitions are lost to it before it knows."""
        with self.lock:
            consumer.is_expelled = True
            self._leave(consumer)

    # -- what a test looks at ----------------------------------------------------------------

    def log(self, place: Place) -> Log:
        return self.topics[place[0]].logs[place[1]]

    def records(self, topic: str, partition: int) -> list[bytes | None]:
        """The values of committed records."""
        with self.lock:
            entries = self.log((topic, partition)).entries
            return [entry.value for entry in entries if entry.is_visible(True)]

    def committed(self, group: str, topic: str, partition: int) -> tuple[int, str] | None:
        return self.groups[group].committed.get((topic, partition))

    # -- clients -----------------------------------------------------------------------------

    def consumer(self, options: Mapping[str, Any]) -> ScriptedConsumer:
        return ScriptedConsumer(self, options)

    def producer(self, options: Mapping[str, Any]) -> ScriptedProducer:
        return ScriptedProducer(self, options)

    def admin(self, options: Mapping[str, Any]) -> ScriptedAdmin:
        return ScriptedAdmin(self, options)

    def answer(self, client: Client, call: str, timeout_s: float = 0.0) -> bool:
        """Raise what the script says; True where the call shall fail after it took effect."""
        if self.away or client.is_lost:
            self.passes(timeout_s)
            raise failed(KafkaError._TRANSPORT, "no broker answers", retriable=True)
        if not self._failures[call]:
            return False
        error, applied = self._failures[call].pop(0)
        if error.code() == KafkaError._TIMED_OUT:
            self.passes(timeout_s)
        if applied:
            self._failures[call].insert(0, (error, False))
            return True
        raise KafkaException(error)

    def passes(self, seconds: float) -> None:
        if self.clock is not None:
            self.clock.advance(seconds)

    # -- transactions ------------------------------------------------------------------------

    def take_over(self, name: str, newcomer: ScriptedProducer) -> None:
        """The producer before it is fenced, and what it has open is aborted."""
        before = self.epochs.get(name)
        open_one = None if before is None else before.transaction
        if open_one is not None and open_one.state == "open":
            self.finish(open_one, "aborted")
        self.epochs[name] = newcomer

    def finish(self, transaction: Transaction, state: Literal["committed", "aborted"]) -> None:
        transaction.state = state
        for place in sorted(transaction.written):
            if place[0] in self.topics:
                self.log(place).append(
                    key=None, value=None, headers=(), transaction=transaction, is_marker=True
                )
        if state == "committed":
            for (group, place), commit in transaction.offsets.items():
                self.groups[group].committed[place] = commit

    def is_pending(self, group: str, place: Place) -> bool:
        """Whether a transaction that is open holds an offset of the group for this partition."""
        return any(
            producer.transaction is not None
            and producer.transaction.state == "open"
            and (group, place) in producer.transaction.offsets
            for producer in self.epochs.values()
        )

    # -- groups ------------------------------------------------------------------------------

    def join(self, consumer: ScriptedConsumer) -> None:
        group = self.groups[consumer.group]
        for member in list(group.members):
            if consumer.instance is not None and member.instance == consumer.instance:
                # Static membership: the newcomer takes over, without a rebalance for the others.
                self._leave(member)
                member.fence()
        group.members.append(consumer)
        self._balance(group)

    def leave(self, consumer: ScriptedConsumer) -> None:
        if consumer in self.groups[consumer.group].members:
            self._leave(consumer)

    def _leave(self, consumer: ScriptedConsumer) -> None:
        group = self.groups[consumer.group]
        group.members.remove(consumer)
        group.holders = {p: member for p, member in group.holders.items() if member is not consumer}
        self._balance(group)

    def _balance(self, group: Group) -> None:
        """As many for each as for the others, and as few moved as that allows."""
        group.generation += 1
        members = group.members
        names = {name for member in members for name in member.subscription if name in self.topics}
        places = [(name, p) for name in sorted(names) for p in range(len(self.topics[name].logs))]
        group.targets = {}
        if not members:
            return
        most = -(-len(places) // len(members))
        counts: defaultdict[int, int] = defaultdict(int)
        for place in places:
            holder = group.holders.get(place)
            if holder is not None and counts[id(holder)] < most:
                group.targets[place] = holder
                counts[id(holder)] += 1
        for place in places:
            if place not in group.targets:
                least = min(members, key=lambda member: counts[id(member)])
                group.targets[place] = least
                counts[id(least)] += 1


class Client:
    def __init__(self, cluster: Cluster, options: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.options = options
        self.is_lost = False
        cluster.clients.append(self)

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        with self.cluster.lock:
            self.cluster.answer(self, "list_topics", timeout)
            found = {
                name: SimpleNamespace(partitions=dict(enumerate(known.logs)))
                for name, known in self.cluster.topics.items()
            }
            return SimpleNamespace(topics=found)


@dataclass
class Fetch:
    position: int
    # The end that was told of already.
    told_of_end: int = -1


class GroupMetadata:
    """Opaque to a client, but that its bytes hold the generation."""

    def __init__(self, member: ScriptedConsumer, generation: int) -> None:
        self.member = member
        self.generation = generation

    def __bytes__(self) -> bytes:
        return b"CGMDv2:" + self.generation.to_bytes(4, "little", signed=True)


class ScriptedConsumer(Client):
    def __init__(self, cluster: Cluster, options: Mapping[str, Any]) -> None:
        super().__init__(cluster, options)
        self.group = str(options["group.id"])
        self.instance = options.get("group.instance.id")
        self.subscription: list[str] = []
        self.is_expelled = False
        self.is_closed = False
        self.assigned: dict[Place, Fetch] = {}
        # Kept when a partition is unassigned and assigned again, as librdkafka does.
        self.paused: set[Place] = set()
        self._committed_only = options.get("isolation.level") != "read_uncommitted"
        self._callbacks: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        self._fatal: KafkaError | None = None
        self._tells: list[KafkaError] = []
        self._told_of_no_broker = False
        # Given by the group and not taken away.
        self._given: set[Place] = set()
        # Whether a callback has assigned or unassigned itself.
        self._acted = False

    # -- group -------------------------------------------------------------------------------

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        with self.cluster.lock:
            self.subscription = topics
            self._callbacks = callbacks

    def fence(self) -> None:
        self._fatal = KafkaError(
            KafkaError._FATAL, "FENCED_INSTANCE_ID: static consumer fenced by other consumer", True
        )
        self._tells.append(self._fatal)

    def consumer_group_metadata(self) -> GroupMetadata:
        with self.cluster.lock:
            group = self.cluster.groups[self.group]
            return GroupMetadata(self, group.generation if self in group.members else -1)

    def _rebalance(self) -> None:
        """Callbacks are made without the lock: what they do may need other threads."""
        if self.is_expelled:
            self.is_expelled = False
            self._call("on_lost", self._held())
        if not self.subscription or self._fatal is not None:
            return
        group = self.cluster.groups[self.group]
        with self.cluster.lock:
            if self not in group.members:
                self.cluster.join(self)
            held = [p for p, member in group.holders.items() if member is self]
            revoked = [place for place in held if group.targets.get(place) is not self]
        self._call("on_revoke", revoked)
        with self.cluster.lock:
            for place in revoked:
                group.holders.pop(place, None)
            wanted = [p for p, member in group.targets.items() if member is self]
            gained = [place for place in wanted if place not in group.holders]
            group.holders.update(dict.fromkeys(gained, self))
        self._call("on_assign", gained)

    def _held(self) -> list[Place]:
        return sorted(self._given)

    def _call(self, name: str, places: list[Place]) -> None:
        """What a callback does not do itself, the client does after it."""
        assigns = name == "on_assign"
        self._given = self._given | set(places) if assigns else self._given - set(places)
        if not places:
            return
        self._acted = False
        if name in self._callbacks:
            self._callbacks[name](self, [TopicPartition(*place) for place in places])
        if self._acted:
            return
        if assigns:
            self._assign(TopicPartition(*place) for place in places)
        else:
            for place in places:
                self.assigned.pop(place, None)

    # -- assignment --------------------------------------------------------------------------

    def assign(self, partitions: list[TopicPartition]) -> None:
        with self.cluster.lock:
            self._acted = True
            self.assigned.clear()
            self._assign(partitions)

    def unassign(self) -> None:
        self.assign([])

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        with self.cluster.lock:
            self._acted = True
            if any((item.topic, item.partition) in self.assigned for item in partitions):
                raise failed(KafkaError._CONFLICT, "already assigned")
            self._assign(partitions)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        with self.cluster.lock:
            self._acted = True
            places = [(item.topic, item.partition) for item in partitions]
            if any(place not in self.assigned for place in places):
                raise failed(KafkaError._INVALID_ARG, "not assigned")
            for place in places:
                del self.assigned[place]

    def _assign(self, partitions: Iterable[TopicPartition]) -> None:
        for item in partitions:
            place = (item.topic, item.partition)
            at = item.offset
            if at == OFFSET_INVALID:
                at = self.cluster.groups[self.group].committed.get(place, (OFFSET_BEGINNING, ""))[0]
            self.assigned[place] = Fetch(at)

    def pause(self, partitions: list[TopicPartition]) -> None:
        with self.cluster.lock:
            self.paused |= {(item.topic, item.partition) for item in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        with self.cluster.lock:
            self.paused -= {(item.topic, item.partition) for item in partitions}

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._call("on_revoke", self._held())
            with self.cluster.lock:
                self.cluster.leave(self)
                self.assigned.clear()

    # -- reading -----------------------------------------------------------------------------

    def poll(self, timeout: float = -1) -> Message | None:
        return next(iter(self.consume(1, timeout)), None)

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        if self.subscription:
            self.cluster.on_poll()
        found = self._consume(num_messages)
        if not found:
            threading.Event().wait(IDLE_S)
            # A member's poll takes no time of the test's, but one that waits for the broker does.
            if not self.subscription:
                self.cluster.passes(timeout)
        return found

    def _consume(self, at_most: int) -> list[Message]:
        tells, self._tells = self._tells, []
        for error in tells:
            self.options["error_cb"](error)
        if self.cluster.away or self.is_lost:
            if not self._told_of_no_broker:
                self._told_of_no_broker = True
                self.options["error_cb"](KafkaError(KafkaError._ALL_BROKERS_DOWN))
            return []
        self._told_of_no_broker = False
        self._rebalance()
        if self._fatal is not None:
            return []
        found: list[Message] = []
        with self.cluster.lock:
            for place, fetch in list(self.assigned.items()):
                if place not in self.paused and place[0] in self.cluster.topics:
                    found += self._fetch(place, fetch, at_most - len(found))
        return found

    def _fetch(self, place: Place, fetch: Fetch, at_most: int) -> list[Message]:
        log = self.cluster.log(place)
        if not log.start <= fetch.position <= log.end:
            # auto.offset.reset is earliest.
            fetch.position, fetch.told_of_end = log.start, -1
        found: list[Message] = []
        end = log.stable() if self._committed_only else log.end
        for entry in log.entries:
            if len(found) >= at_most or entry.offset >= end:
                break
            if entry.offset >= fetch.position:
                fetch.position = entry.offset + 1
                if entry.is_visible(self._committed_only):
                    found.append(_message(place, entry))
        if len(found) < at_most and fetch.position >= end and fetch.told_of_end != end:
            fetch.told_of_end = end
            error = KafkaError(KafkaError._PARTITION_EOF)
            found.append(Message(place[0], place[1], end, error=error))
        return found

    # -- questions ---------------------------------------------------------------------------

    def committed(
        self, partitions: list[TopicPartition], timeout: float = -1
    ) -> list[TopicPartition]:
        with self.cluster.lock:
            self.cluster.answer(self, "committed", timeout)
            group = self.cluster.groups[self.group]
            found = []
            for item in partitions:
                place = (item.topic, item.partition)
                if self._committed_only and self.cluster.is_pending(self.group, place):
                    self.cluster.passes(timeout)
                    raise failed(KafkaError._TIMED_OUT, "offsets are not stable")
                offset, metadata = group.committed.get(place, (OFFSET_INVALID, ""))
                found.append(TopicPartition(*place, offset, metadata))
            return found

    def offsets_for_times(
        self, partitions: list[TopicPartition], timeout: float = -1
    ) -> list[TopicPartition]:
        with self.cluster.lock:
            self.cluster.answer(self, "offsets_for_times", timeout)
            return [self._offset_for_time(item) for item in partitions]

    def _offset_for_time(self, at: TopicPartition) -> TopicPartition:
        if at.topic not in self.cluster.topics:
            raise failed(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic")
        log = self.cluster.log((at.topic, at.partition))
        end = log.stable() if self._committed_only else log.end
        if at.offset == OFFSET_BEGINNING:
            found = log.start
        elif at.offset == OFFSET_END:
            found = end
        else:
            later = (entry.offset for entry in log.entries if entry.timestamp_ms >= at.offset)
            found = next(later, OFFSET_END)
        return TopicPartition(at.topic, at.partition, found)


class ScriptedProducer(Client):
    """Transactional. What the broker refuses of a record it says when the transaction ends."""

    def __init__(self, cluster: Cluster, options: Mapping[str, Any]) -> None:
        super().__init__(cluster, options)
        self.name = str(options["transactional.id"])
        self.transaction: Transaction | None = None
        self._largest = int(options.get("message.max.bytes", 1_000_000))
        self._must_abort: KafkaError | None = None
        self._refused: list[tuple[KafkaError, Message]] = []

    def init_transactions(self, timeout: float = -1) -> None:
        with self.cluster.lock:
            self.cluster.answer(self, "init_transactions", timeout)
            self.cluster.take_over(self.name, self)

    def begin_transaction(self) -> None:
        with self.cluster.lock:
            self._fail("begin_transaction")
            if self.transaction is not None:
                raise failed(KafkaError._STATE, "a transaction is open")
            self.transaction = Transaction()
            self._must_abort = None

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> None:
        with self.cluster.lock:
            transaction = self._open()
            if len(value or b"") + len(key or b"") > self._largest:
                raise failed(KafkaError.MSG_SIZE_TOO_LARGE, "larger than message.max.bytes")
            error = self.cluster.refuse(topic, value)
            if error is None and topic not in self.cluster.topics:
                error = KafkaError(KafkaError._UNKNOWN_TOPIC)
            if error is not None:
                self._refused.append((error, Message(topic, partition, error=error)))
                self._must_abort = error
                return
            log = self.cluster.log((topic, partition))
            log.append(key=key, value=value, headers=tuple(headers), transaction=transaction)
            transaction.written.add((topic, partition))

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], metadata: GroupMetadata, timeout: float = -1
    ) -> None:
        with self.cluster.lock:
            transaction = self._open()
            if not offsets:
                # As librdkafka: it sends nothing then, so nobody checks the group either.
                return
            late = self._fail("send_offsets_to_transaction", timeout)
            group = self.cluster.groups[metadata.member.group]
            is_stale = metadata.generation != group.generation
            if metadata.generation >= 0 and metadata.member not in group.members:
                raise self._aborts(KafkaError.UNKNOWN_MEMBER_ID)
            if metadata.generation >= 0 and is_stale:
                raise self._aborts(KafkaError.ILLEGAL_GENERATION)
            for item in offsets:
                place = (item.topic, item.partition)
                commit = (item.offset, item.metadata or "")
                transaction.offsets[metadata.member.group, place] = commit
            if late:
                self.cluster.answer(self, "send_offsets_to_transaction", timeout)

    def commit_transaction(self, timeout: float = -1) -> None:
        with self.cluster.lock:
            if self.transaction is not None and self.transaction.state == "committed":
                # Asked again after an answer that was lost.
                self._fail("commit_transaction", timeout)
                self.transaction = None
                return
            transaction = self._open()
            self._deliver()
            if self._must_abort is not None:
                raise KafkaException(_abortable(self._must_abort.code()))
            late = self._fail("commit_transaction", timeout)
            self.cluster.finish(transaction, "committed")
            if late:
                self.cluster.answer(self, "commit_transaction", timeout)
            self.transaction = None

    def abort_transaction(self, timeout: float = -1) -> None:
        with self.cluster.lock:
            self._fail("abort_transaction", timeout)
            self._deliver()
            transaction = self._open()
            self.cluster.finish(transaction, "aborted")
            self.transaction = None

    def poll(self, timeout: float = -1) -> int:
        with self.cluster.lock:
            self._deliver()
        return 0

    def flush(self, timeout: float = -1) -> int:
        return self.poll(timeout)

    def _open(self) -> Transaction:
        self._check_fenced()
        if self.transaction is None or self.transaction.state != "open":
            raise failed(KafkaError._STATE, "no transaction is open")
        return self.transaction

    def _fail(self, call: str, timeout: float = 0.0) -> bool:
        self._check_fenced()
        return self.cluster.answer(self, call, timeout)

    def _check_fenced(self) -> None:
        if self.cluster.epochs.get(self.name) is not self:
            raise failed(KafkaError._FENCED, "fenced by a newer producer", fatal=True)

    def _aborts(self, code: int) -> KafkaException:
        self._must_abort = _abortable(code)
        return KafkaException(self._must_abort)

    def _deliver(self) -> None:
        refused, self._refused = self._refused, []
        for error, message in refused:
            self.options["on_delivery"](error, message)


class ScriptedAdmin(Client):
    def describe_topics(self, topics: Any, request_timeout: float = -1) -> dict[str, Future[Any]]:
        with self.cluster.lock:
            return {name: self._promise(name, request_timeout) for name in topics.topic_names}

    def _promise(self, name: str, timeout: float) -> Future[Any]:
        promise: Future[Any] = Future()
        try:
            self.cluster.answer(self, "describe_topics", timeout)
        except KafkaException as error:
            promise.set_exception(error)
            return promise
        topic = self.cluster.topics.get(name)
        if topic is None:
            promise.set_exception(failed(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic"))
        else:
            promise.set_result(SimpleNamespace(topic_id=topic.id, partitions=topic.logs))
        return promise


def failed(code: int, reason: str, fatal: bool = False, retriable: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, reason, fatal, retriable))


def _abortable(code: int) -> KafkaError:
    return KafkaError(code, None, False, False, True)


def _message(place: Place, entry: Entry) -> Message:
    return Message(
        place[0],
        place[1],
        entry.offset,
        entry.key,
        entry.value,
        headers=list(entry.headers),
        timestamp=(TIMESTAMP_CREATE_TIME, entry.timestamp_ms),
    )
