"""Naming the branches of unions changes no byte of what is written."""

from __future__ import annotations

import io
import json
from importlib import resources
from typing import Any

import fastavro
import pytest

from reviewmesh.avro.branches import naming_of
from reviewmesh.avro.codec import load_schema, without_logical_types
from reviewmesh.avro.topics import load_topics

SCHEMAS = sorted({topic.schema for topic in load_topics().topics})


def parsed(name: str) -> Any:
    return fastavro.parse_schema(without_logical_types(load_schema(name)))


def written(schema: Any, record: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_bytes_are_the_same(name: str) -> None:
    schema = parsed(name)
    naming = naming_of(schema)
    text = resources.files("reviewmesh_schemas").joinpath(f"examples/{name}.json").read_text()
    for example in json.loads(text):
        before = json.dumps(example)
        named = example if naming is None else naming(example)
        assert written(schema, named) == written(schema, example)
        assert json.dumps(example) == before, "the caller's record stays as it is"


def test_records_in_unions_maps_and_arrays_are_named() -> None:
    inner = {"type": "record", "name": "x.In", "fields": [{"name": "n", "type": "long"}]}
    fields = [
        {"name": "one", "type": ["null", inner], "default": None},
        {"name": "many", "type": {"type": "array", "items": ["null", "x.In"]}, "default": []},
        {"name": "named", "type": {"type": "map", "values": ["x.In", "null"]}, "default": {}},
        {"name": "other", "type": ["null", "string", "long"], "default": None},
    ]
    schema: Any = fastavro.parse_schema({"type": "record", "name": "x.Out", "fields": fields})
    naming = naming_of(schema)
    assert naming is not None
    record = {"one": {"n": 1}, "many": [None, {"n": 2}], "named": {"k": {"n": 3}}, "other": "text"}
    assert naming(record)["one"] == ("x.In", {"n": 1})
    assert naming({"one": None, "other": 1}) == {"one": None, "other": 1}
    assert written(schema, naming(record)) == written(schema, record)
