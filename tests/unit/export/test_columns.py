"""Columns of both views, and what an earlier version exported in today's columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from reviewmesh.export.columns import fitted, flat_row, views
from tests.unit.export.reviews import EXAMPLE

FULL, FLAT = views()


def without(type_: pa.DataType, name: str) -> pa.DataType:
    """The same type as it was before it got a field of that name, at any depth."""
    if pa.types.is_struct(type_):
        kept = [field for field in type_ if field.name != name]
        return pa.struct([pa.field(field.name, without(field.type, name)) for field in kept])
    if pa.types.is_list(type_):
        return pa.list_(without(type_.value_type, name))
    if pa.types.is_map(type_):
        return pa.map_(pa.string(), without(type_.item_type, name))
    return type_


def stripped(value: Any, name: str) -> Any:
    """The same value without it; null is what it has there today."""
    if isinstance(value, dict):
        return {key: None if key == name else stripped(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [stripped(item, name) for item in value]
    return value


def test_what_an_earlier_version_exported_has_null_where_it_knew_nothing() -> None:
    rows = [EXAMPLE, EXAMPLE | {"review_id": "r-2", "entities": [], "sentiment": None}]
    today = pa.Table.from_pylist(rows, schema=FULL.schema)
    for name in ("polarity", "score", "call_id", "erased_at"):
        earlier = pa.schema(
            [
                pa.field(field.name, without(field.type, name))
                for field in FULL.schema
                if field.name != name
            ]
        )
        table = fitted(pa.Table.from_pylist(rows, schema=earlier), FULL.schema)
        assert table.schema.equals(FULL.schema)
        wanted = [stripped(row, name) for row in today.to_pylist(maps_as_pydicts="strict")]
        assert table.to_pylist(maps_as_pydicts="strict") == wanted


def test_the_full_view_holds_every_field() -> None:
    [row] = pa.Table.from_pylist([EXAMPLE], schema=FULL.schema).to_pylist(maps_as_pydicts="strict")
    assert set(row) >= set(EXAMPLE)
    assert row["entities"] == EXAMPLE["entities"]
    assert row["tasks"]["ner"]["lineage"]["model"] == "e5-reviews"
    assert row["sentiment"] == EXAMPLE["sentiment"]


def test_the_flat_view_has_single_values() -> None:
    entity = EXAMPLE["entities"][0]
    row = flat_row(EXAMPLE | {"entities": [entity, entity, entity | {"text": "Bo"}]})
    assert set(row) == set(FLAT.schema.names)
    assert row["persons"] == "Anna, Bo"
    assert row["locations"] == ""
    assert row["sentiment"] == EXAMPLE["sentiment"]["label"]
    assert row["sentiment_score"] == EXAMPLE["sentiment"]["scores"][row["sentiment"]]
    assert row["topics"].split(", ") == [topic["id"] for topic in EXAMPLE["topics"]]
    assert row["ner_model"] == "e5-reviews@1"
    assert row["language_detected"] == "de"
    assert row["missing"] == ""


def test_the_flat_view_of_a_review_without_answers() -> None:
    tasks = {"ner": {"status": "TIMEOUT", "error": None, "lineage": None}}
    row = flat_row(EXAMPLE | {"sentiment": None, "topics": [], "entities": [], "tasks": tasks})
    assert row["sentiment"] is None
    assert row["sentiment_score"] is None
    assert row["missing"] == "ner TIMEOUT"
    assert row["topic_model"] is None
