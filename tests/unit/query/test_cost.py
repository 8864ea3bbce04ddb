"""What answers cost, from made topics: each once, and nothing unknown as 0."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.avro.codec import Codec, load_schema
from reviewmesh.avro.topics import load_topics
from reviewmesh.leaving.amounts import NOTHING
from reviewmesh.query.budgets import spending
from reviewmesh.query.connection import Connection
from reviewmesh.query.cost import (
    DIMENSIONS,
    MEASURES,
    NO_RESULT,
    Businesses,
    Costs,
    Total,
    cost_measures,
    costs,
)
from reviewmesh.query.values import iso
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import ACCEPTED, ENRICHED, REPROCESSED, RESULT_OF, SHADOW_OF, SPEND
from tests.scripted_kafka import Cluster

SCHEMAS = {topic.name: topic.schema for topic in load_topics().topics}
TOPICS = (*RESULT_OF.values(), *SHADOW_OF.values(), ACCEPTED, REPROCESSED, SPEND)
PARTITIONS = 2
DAY_MS = 86_400_000
NOON_MS = 1_780_000_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
OURS = {"model": "encoder", "model_version": "3", "route": "primary", "attempts": 1}
BOUGHT = {
    "model": "gpt",
    "model_version": "gpt",
    "route": "fallback",
    "provider": "openai",
    "attempts": 2,
    "provider_requests": 3,
    "prompt_tokens": 180,
    "cached_tokens": 128,
    "completion_tokens": 9,
    "cost_micros": 87,
}
MADE = load_schema("sentiment_result")
LINEAGE = next(field for field in MADE["fields"] if field["name"] == "lineage")["type"][1]


class OneSchema:
    """A registry that knows one schema."""

    def __init__(self, name: str) -> None:
        self._schema = load_schema(name)

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        return 1

    def schema(self, schema_id: int) -> Any:
        return self._schema


def codec(topic: str) -> Codec:
    return Codec(OneSchema(SCHEMAS[topic]), topic, SCHEMAS[topic])  # type: ignore[arg-type]


def whole(schema: Any, given: dict[str, Any]) -> dict[str, Any]:
    """A record with what is given; every other field is empty."""
    empty = {"string": "", "long": 0, "boolean": False, "double": 0.0}
    return {
        field["name"]: given.get(
            field["name"],
            field["default"] if "default" in field else empty.get(str(field["type"]), {}),
        )
        for field in schema["fields"]
    }


class World:
    """A mesh of made records on a scripted broker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = Cluster()
        for topic in TOPICS:
            self.cluster.create(topic, PARTITIONS)
        self.cluster.install(monkeypatch)
        monkeypatch.setattr(Connection, "codec", lambda _, topic: codec(topic))
        found = dict.fromkeys(TOPICS, PARTITIONS)
        kafka: Any = {"bootstrap_servers": "broker.invalid:9092"}
        nothing: Any = None
        self.connection = Connection(Settings(kafka=kafka), nothing, nothing, found)

    def write(self, topic: str, partition: int, key: str, record: Any, at_ms: int) -> int:
        value = codec(topic).encode(whole(load_schema(SCHEMAS[topic]), record))
        return self.cluster.log((topic, partition)).append(
            key=key.encode(), value=value, headers=(), transaction=None, timestamp_ms=at_ms
        )

    def accept(self, partition: int, review_id: str, business: str | None) -> int:
        review = {"review_id": review_id, "business_id": business}
        return self.write(ACCEPTED, partition, review_id, review, NOON_MS)

    def answer(
        self,
        task: str,
        partition: int,
        offset: int,
        review_id: str,
        lineage: dict[str, Any] | None,
        at_ms: int = NOON_MS,
        status: str = "OK",
    ) -> None:
        fields = result(partition, offset, review_id, lineage, status)
        self.write(RESULT_OF[task], partition, review_id, fields, at_ms)

    def answer_again(
        self, task: str, partition: int, review_id: str, business: str, lineage: dict[str, Any]
    ) -> None:
        topic = RESULT_OF[task]
        made = whole(load_schema(SCHEMAS[topic]), result(partition, 10**6, review_id, lineage))
        enriched = whole(
            load_schema("enriched_review"), {"review_id": review_id, "business_id": business}
        )
        record = {
            "review_id": review_id,
            "task": task,
            "result": codec(topic).encode(made),
            "enriched": codec(ENRICHED).encode(enriched),
        }
        self.write(REPROCESSED, partition, review_id, record, NOON_MS)

    def spend(
        self, task: str, partition: int, business: str | None, period: str, requests: int
    ) -> None:
        """So many calls had no result; older sums of the same key count no more."""
        for orphaned in (0, requests):
            amount = {"requests": orphaned, "tokens": 0, "cost_micros": 7 * orphaned}
            record = {
                "task": task,
                "partition": partition,
                "period": period,
                "business_id": business,
                "settled": {"requests": 1_000, "tokens": 0, "cost_micros": 1_000},
                "orphaned": amount,
            }
            key = f"{task}/{partition}/{period}/{business or ''}"
            self.write(SPEND, partition, key, record, NOON_MS)

    def costs(self, *by: str, since_ms: int | None = None, until_ms: int | None = None) -> Costs:
        return costs(self.connection, by, since_ms, until_ms)


def result(
    partition: int,
    offset: int,
    review_id: str,
    lineage: dict[str, Any] | None,
    status: str = "OK",
) -> dict[str, Any]:
    return {
        "review_id": review_id,
        "accepted_partition": partition,
        "accepted_offset": offset,
        "status": status,
        "lineage": None if lineage is None else whole(LINEAGE, lineage),
    }


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_calls_without_a_result_are_summed_by_day_and_business(world: World) -> None:
    day = iso(NOON_MS)[:10]
    world.answer("topic", 0, world.accept(0, "a", "hotel"), "a", BOUGHT)
    world.spend("topic", 0, None, day, 5)
    world.spend("topic", 0, "acme", day, 2)
    world.spend("topic", 1, None, day, 1)
    world.spend("topic", 1, None, day[:7], 6)
    world.spend("ner", 1, None, day, 3)

    [total] = [world.costs("route").totals["fallback",]]
    assert (total.answers, total.sums["provider_requests"]) == (1, 3 + 9)
    assert total.sums["cost_micros"] == 87 + 7 * 9
    assert not total.is_unknown("cost_micros")
    by_business = world.costs("task", "business", "day").totals
    assert {key: total.sums["provider_requests"] for key, total in by_business.items()} == {
        ("topic", "hotel", day): 3,
        ("topic", "acme", day): 2,
        ("topic", NO_RESULT, day): 4,
        ("ner", NO_RESULT, day): 3,
    }
    assert by_business["ner", NO_RESULT, day].is_unknown("prompt_tokens")
    by_provider = world.costs("provider", "model").totals
    assert by_provider[NO_RESULT, NO_RESULT].sums["provider_requests"] == 9
    assert (None, None) not in by_provider
    later = world.costs("task", since_ms=NOON_MS + DAY_MS)
    assert later.totals == {} and later.unanswered == NOTHING


@pytest.mark.parametrize(
    "period", ["", "a-b-c", "2026-13-45", "9999-12-31", "2026-W48-7", "26-1-1"]
)
def test_sums_of_no_day_or_month_are_skipped(world: World, period: str) -> None:
    day = iso(NOON_MS)[:10]
    world.spend("topic", 0, None, day, 5)
    world.spend("topic", 0, None, period, 2)
    [total] = world.costs("route", since_ms=NOON_MS).totals.values()
    assert total.sums["provider_requests"] == 5
    found = spending(world.connection)
    assert found.skipped == 1
    assert {account.period for account in found.by_account()} == {day}


def test_answers_are_summed_by_what_is_asked_for(world: World) -> None:
    one, other = world.accept(0, "a", "hotel"), world.accept(1, "b", None)
    for task in RESULT_OF:
        world.answer(task, 0, one, "a", OURS)
    world.answer("topic", 1, other, "b", BOUGHT, NOON_MS + DAY_MS)
    world.answer_again("topic", 1, "c", "museum", BOUGHT)

    by_task = world.costs("task").totals
    assert {key: total.answers for key, total in by_task.items()} == {
        ("ner",): 1,
        ("sentiment",): 1,
        ("topic",): 3,
    }
    by_model = world.costs("model", "route", "provider").totals
    bought = by_model["gpt", "fallback", "openai"]
    assert bought.sums == {
        "attempts": 4,
        "provider_requests": 6,
        "prompt_tokens": 360,
        "cached_tokens": 256,
        "completion_tokens": 18,
        "cost_micros": 174,
    }
    assert not bought.unknown
    ours = by_model["encoder 3", "primary", None]
    assert ours.unknown["cost_micros"] == ours.unknown["prompt_tokens"] == 3
    assert ours.sums["attempts"] == 3 and not ours.unknown["provider_requests"]
    by_business = world.costs("business")
    assert {key: total.answers for key, total in by_business.totals.items()} == {
        ("hotel",): 3,
        (None,): 1,
        ("museum",): 1,
    }
    assert by_business.without_review == 0
    assert sorted(total.answers for total in world.costs("day").totals.values()) == [1, 4]


def test_an_answer_after_a_reset_is_a_second_one_that_was_paid(world: World) -> None:
    offset = world.accept(0, "a", "hotel")
    world.answer("topic", 0, offset, "a", BOUGHT)
    world.answer("topic", 0, offset, "a", BOUGHT)
    [total] = world.costs("business").totals.values()
    assert (total.answers, total.sums["cost_micros"]) == (2, 174)


def test_a_failed_answer_without_lineage_is_unknown_and_not_free(world: World) -> None:
    world.answer("ner", 0, 0, "a", None, status="FAILED")
    [total] = world.costs("model").totals.values()
    assert (total.answers, total.failed) == (1, 1)
    assert total.unknown == dict.fromkeys(MEASURES, 1)
    assert not total.sums


def test_a_worker_that_knew_the_answer_is_paid_nothing() -> None:
    remembered = BOUGHT | {"provider_requests": 0, "cost_micros": None, "prompt_tokens": 0}
    told = cost_measures(remembered)
    assert told["attempts"] == 2
    assert [told[name] for name in MEASURES[1:]] == [0, 0, 0, 0, 0]


def test_times_bound_what_is_summed(world: World) -> None:
    for day in range(3):
        world.answer("ner", 0, day, "a", OURS, NOON_MS + day * DAY_MS)
    middle = world.costs("day", since_ms=NOON_MS + DAY_MS, until_ms=NOON_MS + 2 * DAY_MS)
    assert [total.answers for total in middle.totals.values()] == [1]
    assert middle.oldest_ms == NOON_MS + DAY_MS
    assert not world.costs("day", since_ms=NOON_MS + 9 * DAY_MS).totals


def test_what_no_enricher_writes_is_told_apart(world: World) -> None:
    world.cluster.append(RESULT_OF["ner"], 0, b"not ours")
    world.cluster.append(RESULT_OF["ner"], 0, None)
    world.write(RESULT_OF["ner"], 0, "a", result(1, 0, "a", OURS), NOON_MS)
    world.write(RESULT_OF["ner"], 1, "another", result(1, 0, "a", OURS), NOON_MS)
    world.write(REPROCESSED, 0, "a", {"review_id": "a", "task": "nothing"}, NOON_MS)
    found = world.costs("task")
    assert (found.totals, found.skipped) == ({}, 5)


def test_the_business_of_a_review_that_is_gone_is_not_known(world: World) -> None:
    gone, kept = world.accept(0, "a", "hotel"), world.accept(0, "b", "museum")
    for offset, review_id in ((gone, "a"), (kept, "b"), (kept, "of the topic before"), (9, "d")):
        world.answer("ner", 0, offset, review_id, OURS)
    world.cluster.delete_records(ACCEPTED, 0, before=kept)
    found = world.costs("business")
    assert {key: total.answers for key, total in found.totals.items()} == {
        ("museum",): 1,
        (None,): 3,
    }
    assert found.without_review == 3
    assert world.costs("task").without_review == 0


LINEAGES = st.fixed_dictionaries(
    {"model": st.sampled_from(["one", "two"]), "provider": st.sampled_from([None, "openai"])}
    | {name: st.none() | st.integers(0, 10**12) for name in MEASURES}
)


@given(st.lists(st.tuples(st.integers(0, 3), LINEAGES), max_size=20))
def test_parts_add_up_to_the_whole_without_rounding(answers: list[tuple[int, Any]]) -> None:
    by_key: dict[int, Total] = {}
    alone = Total()
    for key, lineage in answers:
        by_key.setdefault(key, Total()).add("OK", cost_measures(lineage))
        alone.add("OK", cost_measures(lineage))
    assert sum(by_key.values(), Total()) == dataclasses.replace(
        alone, sums=+alone.sums, unknown=+alone.unknown
    )
    for name in MEASURES:
        known = [
            told for _, lineage in answers if (told := cost_measures(lineage)[name]) is not None
        ]
        assert alone.sums[name] == sum(known)
        assert alone.unknown[name] == len(answers) - len(known)


@given(st.dictionaries(st.integers(50, 80), st.none() | st.text(max_size=3)))
def test_businesses_are_found_where_they_were_put(names: dict[int, str | None]) -> None:
    businesses = Businesses(50, 81)
    for offset, name in names.items():
        businesses.add(offset, f"review {offset}", name)
    for offset in range(45, 90):
        if offset in names:
            assert businesses.find(offset, f"review {offset}") == names[offset]
            with pytest.raises(KeyError):
                businesses.find(offset, "another")
        else:
            with pytest.raises(KeyError):
                businesses.find(offset, f"review {offset}")


def test_every_dimension_can_be_asked_for(world: World) -> None:
    world.answer("ner", 0, world.accept(0, "a", "hotel"), "a", BOUGHT)
    [key] = world.costs(*DIMENSIONS).totals
    assert key[:5] == ("ner", "gpt", "fallback", "openai", "hotel")


def test_what_a_candidate_answered_in_shadow_was_paid_as_well(world: World) -> None:
    at = world.accept(0, "a", "b-1")
    world.answer("topic", 0, at, "a", OURS)
    copy = result(0, at, "a", BOUGHT | {"route": "candidate"})
    world.write(SHADOW_OF["topic"], 0, "a", copy, NOON_MS)
    found = world.costs("task", "route", "business")
    assert {key: total.answers for key, total in found.ordered()} == {
        ("topic", "candidate", "b-1"): 1,
        ("topic", "primary", "b-1"): 1,
    }
