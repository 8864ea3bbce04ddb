"""Columns of the views: the full one from the schema of EnrichedReview, the flat one for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from reviewmesh.query.values import as_json, failed_tasks, iso, schema_of
from reviewmesh_schemas.names import ENRICHED, TASKS

PLAIN = {
    "string": pa.string(),
    "long": pa.int64(),
    "int": pa.int32(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
}
MOMENT = pa.timestamp("ms", tz="UTC")
BETWEEN = ", "


@dataclass(frozen=True)
class View:
    """One of the two ways in which an export shows a review."""

    name: str
    schema: pa.Schema
    row: Callable[[Mapping[str, Any]], dict[str, Any]]
    """A decoded EnrichedReview as a row of these columns."""
    line: Callable[[dict[str, Any]], dict[str, Any]]
    """The same row for JSON."""


def arrow_type(avro: Any, named: dict[str, pa.DataType] | None = None) -> pa.DataType:
    """The type of a column for an Avro type of the contracts."""
    named = {} if named is None else named
    if isinstance(avro, list):
        # Every union of the contracts is one type or null, and each column may be null.
        return arrow_type(next(branch for branch in avro if branch != "null"), named)
    if isinstance(avro, str):
        return PLAIN[avro] if avro in PLAIN else named[avro.rpartition(".")[2]]
    if avro["type"] == "array":
        return pa.list_(arrow_type(avro["items"], named))
    if avro["type"] == "map":
        return pa.map_(pa.string(), arrow_type(avro["values"], named))
    if avro["type"] != "record":
        is_moment = avro.get("logicalType") == "timestamp-millis"
        return MOMENT if is_moment else arrow_type(avro["type"], named)
    fields = [pa.field(item["name"], arrow_type(item["type"], named)) for item in avro["fields"]]
    named[avro["name"]] = pa.struct(fields)
    return named[avro["name"]]


FLAT_COLUMNS: dict[str, pa.DataType] = {
    "review_id": pa.string(),
    "business_id": pa.string(),
    "source": pa.string(),
    "created_at": MOMENT,
    "accepted_at": MOMENT,
    "stars": pa.float64(),
    "language": pa.string(),
    "language_detected": pa.string(),
    "title": pa.string(),
    "text": pa.string(),
    "sentiment": pa.string(),
    "sentiment_score": pa.float64(),
    "topics": pa.string(),
    "topics_positive": pa.string(),
    "topics_negative": pa.string(),
    **{
        column: pa.string()
        for column in ("persons", "locations", "organizations", "products", "creative_works")
    },
    "complete": pa.bool_(),
    "missing": pa.string(),
    **{f"{task}_model": pa.string() for task in TASKS},
    "revision": pa.int64(),
    "enriched_at": MOMENT,
}


def flat_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A review as one line of a table: single values, lists as text."""
    row = {name: record.get(name) for name in FLAT_COLUMNS}
    lineages = {task: _lineage(record, task) for task in TASKS}
    sentiment = record["sentiment"] or {}
    topics = record["topics"]
    row |= {
        "language_detected": next(
            (lineage["language"] for lineage in lineages.values() if lineage.get("language")), None
        ),
        "sentiment": sentiment.get("label"),
        "sentiment_score": sentiment.get("scores", {}).get(sentiment.get("label")),
        "topics": BETWEEN.join(topic["id"] for topic in topics),
        **{
            f"topics_{polarity}": BETWEEN.join(
                topic["id"] for topic in topics if topic["polarity"] == polarity
            )
            for polarity in ("positive", "negative")
        },
        "missing": BETWEEN.join(failed_tasks(dict(record))),
        **{f"{task}_model": _model(lineage) for task, lineage in lineages.items()},
        "enriched_at": (record["timings"] or {}).get("enriched_at"),
    }
    for label in ("person", "location", "organization", "product", "creative_work"):
        # A name that comes twice in a review is one name.
        texts = [item["text"] for item in record["entities"] if item["label"] == label]
        row[f"{label}s"] = BETWEEN.join(dict.fromkeys(texts))
    return row


def _lineage(record: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    return record["tasks"].get(task, {}).get("lineage") or {}


def _model(lineage: Mapping[str, Any]) -> str | None:
    parts = [lineage.get("model"), lineage.get("model_version")]
    return "@".join(part for part in parts if part) or None


def _flat_line(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: iso(value) if FLAT_COLUMNS[name] == MOMENT and value is not None else value
        for name, value in row.items()
    }


@cache
def views() -> tuple[View, View]:
    """The full view and the flat one."""
    avro = schema_of(ENRICHED)
    full = View("full", pa.schema(list(arrow_type(avro))), dict, lambda row: as_json(avro, row))
    flat = View("flat", pa.schema(list(FLAT_COLUMNS.items())), flat_row, _flat_line)
    return full, flat


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """What an earlier version exported, in today's columns: null where it knew nothing."""
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        if field.name in table.column_names:
            chunks = [_fitted(chunk, field.type) for chunk in table[field.name].chunks]
            columns.append(pa.chunked_array(chunks, type=field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.table(columns, schema=schema)


def _fitted(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if array.type == wanted:
        return array
    if pa.types.is_struct(wanted):
        known = {field.name: number for number, field in enumerate(array.type)}
        children = [
            _fitted(array.field(known[field.name]), field.type)
            if field.name in known
            else pa.nulls(len(array), field.type)
            for field in wanted
        ]
        return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())
    if pa.types.is_list(wanted):
        # A copy begins at its first item, which `from_arrays` takes for granted.
        whole = pa.concat_arrays([array])
        values = _fitted(whole.values, wanted.value_type)
        return pa.ListArray.from_arrays(whole.offsets, values, wanted, mask=whole.is_null())
    if pa.types.is_map(wanted):
        whole = pa.concat_arrays([array])
        items = _fitted(whole.items, wanted.item_type)
        return pa.MapArray.from_arrays(whole.offsets, whole.keys, items, wanted)
    return array.cast(wanted)
