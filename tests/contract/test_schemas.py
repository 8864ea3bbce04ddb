"""The Avro contract, on the real registry: rules for fields, examples, compatibility, topics."""

from __future__ import annotations

import copy
import json
import uuid
from importlib import resources
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    ResourceType,
)

from reviewmesh.avro import topics
from reviewmesh.avro.codec import Codec, load_schema
from reviewmesh.avro.registry import IncompatibleSchema, SchemaRegistry
from reviewmesh_schemas import names
from tests.broker import TestStack

TOPICS = {topic.name: topic for topic in topics.load_topics().topics}
SCHEMAS = sorted({topic.schema for topic in TOPICS.values()})
IDENTITY = {"review_id", "content_hash", "accepted_partition", "accepted_offset"}
IDENTITY_OF = {
    "dead_letter": {"topic", "partition", "offset"},
    "replayed": {"partition", "offset"},
    "reprocess_request": {"campaign", "task", "enriched_offset"},
    "reprocessed_answer": {"campaign", "task", "enriched_offset"},
    "campaign": {"campaign", "task"},
    "departure": {"task"},
    "rollout": {"task"},
    "rollout_command": {"command", "task", "action"},
    "review_insight": {"business_id", "window_start", "window_end"},
    "spend": {"task", "partition", "period"},
}


def examples(schema: str) -> list[dict[str, Any]]:
    text = resources.files("reviewmesh_schemas").joinpath(f"examples/{schema}.json").read_text()
    found: list[dict[str, Any]] = json.loads(text)
    return found


def records(schema: Any) -> list[dict[str, Any]]:
    """Every record type inside a schema."""
    if isinstance(schema, list):
        return [record for item in schema for record in records(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "record" else []
    inner = [schema.get("items"), schema.get("values"), schema.get("type")]
    inner += [field["type"] for field in schema.get("fields", [])]
    return own + [record for item in inner for record in records(item)]


def test_every_topic_has_a_name() -> None:
    single = {names.RAW, names.ACCEPTED, names.ENRICHED, names.PARTIAL, names.REPLAYED}
    assert TOPICS.keys() == single | {
        *names.RESULT_OF.values(),
        *(names.DEAD_LETTER, names.INSIGHTS),
        *(names.REPROCESS, names.REPROCESSED, names.CAMPAIGNS),
        *(names.SPEND, names.DEPARTURES, names.COMMANDS, names.CONTROL, *names.SHADOW_OF.values()),
    }
    for task, topic in names.SHADOW_OF.items():
        assert TOPICS[topic].schema == f"{task}_result"
    for task, topic in names.RESULT_OF.items():
        assert TOPICS[topic].schema == f"{task}_result"


@pytest.mark.parametrize("name", SCHEMAS)
def test_only_identity_is_required_and_every_field_is_explained(name: str) -> None:
    schema = load_schema(name)
    assert schema["namespace"] == "reviewmesh.v1"
    for record in records(schema):
        for field in record["fields"]:
            where = f"{record['name']}.{field['name']}"
            assert field.get("doc"), f"{where} needs a doc"
            required = "default" not in field
            allowed = IDENTITY | IDENTITY_OF.get(name, set())
            assert not required or (record is schema and field["name"] in allowed), where
            assert field["type"] not in ("int", "float"), where


@pytest.fixture(scope="module")
def applied(stack: TestStack) -> tuple[SchemaRegistry, str]:
    registry, prefix = SchemaRegistry(stack.registry_url), f"contract{uuid.uuid4().hex[:8]}."
    kafka = {"bootstrap.servers": stack.bootstrap_servers}
    first = topics.apply(kafka, registry, prefix, 24 * 3600)
    assert sum("created" in line for line in first) == len(TOPICS)
    again = topics.apply(kafka, registry, prefix, 24 * 3600)
    assert sum("created" in line for line in again) == 0
    return registry, prefix


@pytest.mark.parametrize("name", sorted(TOPICS))
def test_a_record_may_outlive_its_retention_by_hours_not_by_days(
    applied: tuple[SchemaRegistry, str], stack: TestStack, name: str
) -> None:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    resource = ConfigResource(ResourceType.TOPIC, applied[1] + name)
    options = admin.describe_configs([resource])[resource].result(15)
    assert int(options["segment.ms"].value) <= 6 * 3600 * 1000 < int(options["retention.ms"].value)


@pytest.mark.parametrize("name", sorted(TOPICS))
def test_examples_survive_the_wire(applied: tuple[SchemaRegistry, str], name: str) -> None:
    registry, prefix = applied
    codec = Codec(registry, f"{prefix}{name}-value", TOPICS[name].schema)
    for example in examples(TOPICS[name].schema):
        decoded = codec.decode(codec.encode(example))
        assert {key: decoded[key] for key in example} == example


@pytest.mark.parametrize("name", sorted(TOPICS))
def test_the_registry_s_form_of_a_schema_is_known_as_our_own(
    applied: tuple[SchemaRegistry, str], name: str
) -> None:
    """Else each record would be read by way of a resolution, which takes three times as long."""
    registry, prefix = applied
    schema, subject = TOPICS[name].schema, f"{prefix}{name}-value"
    codec = Codec(registry, subject, schema)
    resolution = codec._judge(registry.schema(registry.id_of(subject, load_schema(schema))))
    assert resolution.reader is None


def test_an_incompatible_schema_is_refused(applied: tuple[SchemaRegistry, str]) -> None:
    registry, prefix = applied
    subject = f"{prefix}reviews.raw-value"
    changed = copy.deepcopy(load_schema("review"))
    changed["fields"].append({"name": "must", "type": "string"})
    assert not registry.is_compatible(subject, changed)
    with pytest.raises(IncompatibleSchema, match=subject):
        registry.register(subject, changed)
    changed["fields"][-1] = {"name": "may", "type": ["null", "string"], "default": None}
    assert registry.is_compatible(subject, changed)


def test_retention_exceeds_the_windows(stack: TestStack) -> None:
    registry = SchemaRegistry(stack.registry_url)
    kafka = {"bootstrap.servers": stack.bootstrap_servers}
    with pytest.raises(topics.TopicsError, match="retention of 168 h"):
        topics.apply(kafka, registry, "never.", 8 * 24 * 3600)


def test_each_record_has_room_for_the_one_inside_it() -> None:
    path = ("reviews.raw", "reviews.accepted", "reviews.enriched", "reviews.dead-letter")
    sizes = [TOPICS[name].max_message_bytes for name in path]
    assert sizes == sorted(set(sizes))
    assert {topic.partitions for topic in TOPICS.values()} == {6}
    assert {topic.compatibility for topic in TOPICS.values()} == {"FULL_TRANSITIVE"}
