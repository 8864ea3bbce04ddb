"""The Kafka Connect configurations of docs/connect.md name topics and fields that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.avro.codec import load_schema
from reviewmesh.avro.topics import load_topics

PAGE = Path(__file__).parents[2] / "docs" / "connect.md"
SINKS = {
    title.lower(): json.loads(block)
    for title, block in re.findall(
        r"^## (\w+)$.*?^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
}
EVERY_SINK = {"jdbc", "s3", "bigquery", "elasticsearch"}
NAMES_A_FIELD = ("pk.fields", "timestamp.field", "timestampPartitionFieldName")
KNOWN_TRANSFORMS = {"ReplaceField$Value": "exclude", "HoistField$Key": "field"}
TRANSFORMS = "org.apache.kafka.connect.transforms."


def fields(sink: dict[str, str]) -> dict[str, Any]:
    """By name: the fields of the records of the sink's topic, by their types."""
    [topic] = [topic for topic in load_topics().topics if topic.name == sink["topics"]]
    return {field["name"]: field["type"] for field in load_schema(topic.schema)["fields"]}


def named(sink: dict[str, str]) -> dict[str, list[str]]:
    """By property: the fields that it names."""
    found = {name: sink[name].split(",") for name in NAMES_A_FIELD if name in sink}
    for transform in filter(None, sink.get("transforms", "").split(",")):
        kind = sink[f"transforms.{transform}.type"].removeprefix(TRANSFORMS)
        name = f"transforms.{transform}.{KNOWN_TRANSFORMS[kind]}"
        found[name] = sink[name].split(",")
    return found


def left_out(sink: dict[str, str]) -> set[str]:
    return {
        name for key, names in named(sink).items() if key.endswith(".exclude") for name in names
    }


def is_plain(type_: Any) -> bool:
    """Whether a column of a table can hold it."""
    branches = type_ if isinstance(type_, list) else [type_]
    kinds = {branch if isinstance(branch, str) else branch["type"] for branch in branches}
    return not kinds & {"record", "array", "map"}


def test_every_sink_is_there() -> None:
    assert set(SINKS) == EVERY_SINK


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_names_fields_that_exist(name: str) -> None:
    sink = SINKS[name]
    known = fields(sink)
    for key, names in named(sink).items():
        assert set(names) <= set(known), f"{key} names {set(names) - set(known)}"
    kept = set(known) - left_out(sink)
    for key in NAMES_A_FIELD:
        assert set(sink.get(key, "review_id").split(",")) <= kept, f"{key} is left out"
    for key in ("timestamp.field", "timestampPartitionFieldName"):
        if key in sink:
            assert "timestamp-millis" in json.dumps(known[sink[key]])


@pytest.mark.parametrize("name", SINKS)
def test_a_transform_that_is_configured_is_applied(name: str) -> None:
    sink = SINKS[name]
    configured = {key.split(".")[1] for key in sink if key.startswith("transforms.")}
    assert configured == set(filter(None, sink.get("transforms", "").split(",")))


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_reads_what_is_committed_as_it_is_written(name: str) -> None:
    sink = SINKS[name]
    assert sink["consumer.override.isolation.level"] == "read_committed"
    assert sink["value.converter"].endswith(".AvroConverter")
    assert sink["value.converter.schema.registry.url"].endswith("/apis/ccompat/v7")
    assert all(isinstance(value, str) for value in sink.values())


def test_the_columns_of_a_table_are_plain() -> None:
    sink = SINKS["jdbc"]
    nested = {name for name, type_ in fields(sink).items() if not is_plain(type_)}
    assert left_out(sink) == nested


def test_the_table_in_bigquery_is_of_the_topic() -> None:
    sink = SINKS["bigquery"]
    assert sink["topic2TableMap"].split(":")[0] == sink["topics"]
