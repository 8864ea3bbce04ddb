"""A budget holds whenever a process ends: reserve, call, settle, with the log as a list.

The machine kills the owner between any two of its steps, loses the outcome of transactions, and
lets a provider count what it saw.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reviewmesh.enrich.departures import Departure
from reviewmesh.enrich.items import WorkItem
from reviewmesh.enrich.spending import Change, Spending, charged
from reviewmesh.kafka.record import Unit
from reviewmesh.leaving.accounts import Account
from reviewmesh.leaving.amounts import NOTHING, Amount, Spent
from reviewmesh.leaving.budgets import ALL, parse_budgets
from reviewmesh_protos.inference.v1 import inference_pb2

PARTITIONS = 2
CALL = Amount(1, 10, 100)
DAY_REQUESTS, DAY_TOKENS, MONTH_MICROS, ACME_REQUESTS = 5, 40, 600, 2
BUDGETS = parse_budgets(
    f"""\
tasks: [topic]
call: {{tokens: {CALL.tokens}, usd: {CALL.micros / 1e6:.6f}}}
all:
  day: {{requests: {DAY_REQUESTS * PARTITIONS}, tokens: {DAY_TOKENS * PARTITIONS}}}
  month: {{usd: {MONTH_MICROS * PARTITIONS / 1e6:.6f}}}
businesses:
  acme:
    day: {{requests: {ACME_REQUESTS * PARTITIONS}}}
""",
    PARTITIONS,
)
NOON, DAY_S = 1_795_953_600.0, 86_400.0
AT = 0


def pending(**numbers: Any) -> inference_pb2.Usage:
    return inference_pb2.Usage(provider_requests=1, **numbers)


def departure(offset: int, business_id: str | None) -> Departure:
    item = WorkItem(
        token=None,
        partition=AT,
        offset=offset,
        text="text",
        language="en",
        traceparent=None,
        business_id=business_id,
        accepted_s=NOON,
        review_id=f"r-{offset}",
    )
    return Departure.of(item, "eu", "LATE", "text", Counter())


class SpendingMachine(RuleBasedStateMachine):
    """One partition, its owners one after the other, and the provider."""

    @initialize()
    def begin(self) -> None:
        self.now = NOON
        # What is committed: the sums, the audit records, the results with what each settled.
        self.sums: dict[Account, Spent] = {}
        self.audited: set[int] = set()
        self.results: dict[int, tuple[float, str | None, Amount]] = {}
        # What the provider saw, by the moment of the reservation.
        self.seen: list[tuple[float, str | None]] = []
        self.offset = 0
        self.start()

    def start(self) -> None:
        """A new owner, with what is committed."""
        self.spending = Spending(BUDGETS, lambda: self.now)
        # Finished units of the outbox, each with its audit record or result.
        self.outbox: list[tuple[Unit, Any]] = [
            (unit, None) for unit in self.spending.open(AT, dict(self.sums))
        ]
        # Reserved and allowed to leave, with the moment of the reservation.
        self.allowed: dict[Departure, float] = {}
        self.sent: dict[Departure, float] = {}

    def add(self, change: Change | None, content: Any, committed: Any = None) -> None:
        if change is None:
            return
        applied = committed or (lambda: self.spending.apply(AT, change))
        self.outbox.append((Unit(AT, (), committed=applied, carries=change), content))

    # -- the owner's steps -------------------------------------------------------------------

    @rule(business_id=st.sampled_from([None, "acme", "other"]))
    def reserve(self, business_id: str | None) -> None:
        self.offset += 1
        leaves, at = departure(self.offset, business_id), self.now
        left = self.spending.allows(AT, business_id)
        change = self.spending.reserve(leaves)
        assert (change is not None) == left
        if change is None:
            return

        def committed() -> None:
            self.spending.commit_reservation(leaves, change)
            self.allowed[leaves] = at

        self.add(change, ("audit", leaves.item.offset), committed)

    def commit(self, count: int) -> None:
        """What a transaction of the first units writes."""
        units = self.outbox[:count]
        for (partition, account), spent in self.spending.sums_after(
            [unit for unit, _ in units]
        ).items():
            assert partition == AT
            self.sums[account] = spent
        for _, content in units:
            if content is not None and content[0] == "audit":
                self.audited.add(content[1])
            elif content is not None:
                _, offset, at, business_id, amount = content
                self.results[offset] = (at, business_id, amount)

    @precondition(lambda self: self.outbox)
    @rule(count=st.integers(1, 5))
    def transact(self, count: int) -> None:
        self.commit(count)
        done, self.outbox = self.outbox[:count], self.outbox[count:]
        for unit, _ in done:
            assert unit.committed is not None
            unit.committed()

    @precondition(lambda self: any(content for _, content in self.outbox))
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """The audit record is refused every time: the text does not leave."""
        at = [i for i, (_, content) in enumerate(self.outbox) if content and content[0] == "audit"]
        if not at:
            return
        index = data.draw(st.sampled_from(at))
        unit, content = self.outbox.pop(index)
        leaves = departure(content[1], None)
        assert isinstance(unit.carries, dict)
        self.spending.cancel_reservation(leaves, unit.carries)

    @precondition(lambda self: self.allowed)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        leaves = data.draw(st.sampled_from(list(self.allowed)))
        at = self.allowed.pop(leaves)
        assert leaves.item.offset in self.audited
        self.sent[leaves] = at
        self.seen.append((at, leaves.item.business_id))

    @precondition(lambda self: self.allowed)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        leaves = data.draw(st.sampled_from(list(self.allowed)))
        del self.allowed[leaves]
        self.add(self.spending.end_without_result(leaves, NOTHING), None)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), tokens=st.integers(0, CALL.tokens), micros=st.integers(0, CALL.micros))
    def answered(self, data: st.DataObject, tokens: int, micros: int) -> None:
        leaves = data.draw(st.sampled_from(list(self.sent)))
        at = self.sent.pop(leaves)
        said = inference_pb2.Usage(
            provider_requests=1, prompt_tokens=tokens, completion_tokens=0, cost_micros=micros
        )
        change = self.spending.settle(AT, leaves.item.offset, said)
        assert change is not None
        content = ("result", leaves.item.offset, at, leaves.item.business_id, charged(said, CALL))
        self.add(change, content)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), known=st.booleans())
    def failed(self, data: st.DataObject, known: bool) -> None:
        leaves = data.draw(st.sampled_from(list(self.sent)))
        del self.sent[leaves]
        self.add(self.spending.end_without_result(leaves, Amount(1, 2, 3) if known else None), None)

    # -- what happens to it ------------------------------------------------------------------

    # Seldom enough that calls are finished between two kills.
    @precondition(lambda self: self.outbox or self.allowed or self.sent)
    @rule(is_killed=st.sampled_from([False, False, True]), committed=st.integers(0, 3))
    def killed(self, is_killed: bool, committed: int) -> None:
        """Perhaps in a transaction that is committed, and its owner never learns of it."""
        if is_killed:
            self.commit(committed)
            self.start()

    @rule(days=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 30.0, -0.5]))
    def time_passes(self, days: float) -> None:
        self.now += days * DAY_S

    # -- what holds always -------------------------------------------------------------------

    @invariant()
    def budgets_hold(self) -> None:
        for account, spent in getattr(self, "sums", {}).items():
            total = spent.total()
            assert min(*spent.reserved, *spent.settled, *spent.orphaned) >= 0
            if account.kind() == "day" and account.business_id == ALL:
                assert total.requests <= DAY_REQUESTS and total.tokens <= DAY_TOKENS
            if account.kind() == "day" and account.business_id == "acme":
                assert total.requests <= ACME_REQUESTS
            if account.kind() == "month" and account.business_id == ALL:
                assert total.micros <= MONTH_MICROS

    @invariant()
    def what_the_provider_saw_is_accounted_for(self) -> None:
        if not hasattr(self, "sums"):
            return
        seen: Counter[Account] = Counter()
        settled: dict[Account, Amount] = {}
        for at, business_id in self.seen:
            for account in self.accounts(at, business_id):
                seen[account] += 1
        for at, business_id, amount in self.results.values():
            for account in self.accounts(at, business_id):
                settled[account] = settled.get(account, NOTHING).plus(amount)
        for account in {*self.sums, *seen, *settled}:
            spent = self.sums.get(account, Spent())
            assert spent.total().requests >= seen[account]
            assert spent.settled == settled.get(account, NOTHING)

    def accounts(self, at: float, business_id: str | None) -> tuple[Account, ...]:
        return Spending(BUDGETS, lambda: at)._accounts(business_id)


TestSpending = SpendingMachine.TestCase
TestSpending.settings = settings(max_examples=100, stateful_step_count=80, deadline=None)


def test_a_new_owner_counts_what_was_reserved_as_orphaned() -> None:
    day, month = Account("2026-11-29", ALL), Account("2026-11", ALL)
    spending = Spending(BUDGETS, lambda: NOON)
    before = Spent(reserved=CALL, settled=Amount(1, 2, 3), orphaned=Amount(1, 1, 1))
    [unit] = spending.open(AT, {day: before, month: Spent()})
    assert spending.sums_after([unit]) == {
        (AT, day): Spent(NOTHING, before.settled, before.orphaned.plus(CALL))
    }


@pytest.mark.parametrize(
    ("said", "amount"),
    [
        (None, CALL),
        # The worker ran the model itself.
        (inference_pb2.Usage(prompt_tokens=5, completion_tokens=5), NOTHING),
        # It knew the answer.
        (inference_pb2.Usage(provider_requests=0, prompt_tokens=0, completion_tokens=0), NOTHING),
        (
            inference_pb2.Usage(
                provider_requests=1, prompt_tokens=4, completion_tokens=3, cost_micros=50
            ),
            Amount(1, 7, 50),
        ),
        (inference_pb2.Usage(provider_requests=1), CALL),
        (
            inference_pb2.Usage(provider_requests=1, prompt_tokens=4, cost_micros=9),
            Amount(1, CALL.tokens, 9),
        ),
        (
            inference_pb2.Usage(
                provider_requests=1, prompt_tokens=-4, completion_tokens=3, cost_micros=-9
            ),
            CALL,
        ),
    ],
)
def test_what_a_call_took(said: inference_pb2.Usage | None, amount: Amount) -> None:
    assert charged(said, CALL) == amount


def test_a_review_that_asks_again_too_soon_is_refused() -> None:
    spending = Spending(BUDGETS, lambda: NOON)
    spending.open(AT, {})
    first, second = departure(1, None), departure(1, None)
    change = spending.reserve(first)
    assert change is not None and spending.reserve(second) is None
    spending.commit_reservation(first, change)
    assert spending.end_without_result(second, NOTHING) is None
    assert spending.end_without_result(first, NOTHING) is not None
    assert spending.reserve(second) is not None


@pytest.mark.parametrize("business_id", [None, "", "acme", "other"])
def test_nothing_is_left_over_of_a_reservation_that_was_given_back(business_id: str | None) -> None:
    spending = Spending(BUDGETS, lambda: NOON)
    spending.open(AT, {})
    for offset in range(2 * DAY_REQUESTS):
        leaves = departure(offset, business_id)
        change = spending.reserve(leaves)
        assert change is not None
        spending.commit_reservation(leaves, change)
        ended = spending.end_without_result(leaves, NOTHING)
        assert ended is not None
        spending.apply(AT, ended)
    assert set(spending.used().values()) == {NOTHING}


def test_a_day_that_begins_has_a_budget_of_its_own() -> None:
    now = NOON
    spending = Spending(BUDGETS, lambda: now)
    spending.open(AT, {Account("2026-11-29", ALL): Spent(settled=Amount(DAY_REQUESTS, 0, 0))})
    assert not spending.allows(AT, None)
    now += DAY_S / 2
    assert spending.allows(AT, None)
    assert not spending.allows(AT + 1, None)
