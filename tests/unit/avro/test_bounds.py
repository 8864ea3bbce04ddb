"""What the mesh takes from its own topics can be shown by every reader once it is published."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.avro.bounds import check_of
from reviewmesh.avro.codec import load_schema
from reviewmesh.avro.topics import load_topics

SCHEMAS = sorted({topic.schema for topic in load_topics().topics})
LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300_000_000_000_000)
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": LONGS,
    "float": st.floats(width=32),
    "double": st.floats(),
    "bytes": st.binary(max_size=9),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
}


def values(schema: Any, known: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value of the schema, written without its logical types."""
    if isinstance(schema, list):
        return st.one_of([values(branch, known) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, (dict, list)):
        return values(kind, known)
    if kind in known:
        return values(known[kind], known)
    if kind == "record":
        known[schema["name"]] = schema
        return st.fixed_dictionaries(
            {field["name"]: values(field["type"], known) for field in schema["fields"]}
        )
    if kind == "enum":
        return st.sampled_from(schema["symbols"])
    if kind == "array":
        return st.lists(values(schema["items"], known), max_size=2)
    if kind == "map":
        return st.dictionaries(PLAIN["string"], values(schema["values"], known), max_size=2)
    return PLAIN[kind]


def largest_of(schema: Any, value: Any) -> int:
    """The largest whole number within, a sign left out."""
    if isinstance(value, dict):
        return max([largest_of(schema, item) for item in value.values()], default=0)
    if isinstance(value, list):
        return max([largest_of(schema, item) for item in value], default=0)
    return abs(value) if isinstance(value, int) else 0


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_what_passes_is_shown_by_every_reader(name: str, data: st.DataObject) -> None:
    schema = load_schema(name)
    record = data.draw(values(schema, {}))
    check = check_of(schema)
    problem = check("", record) if check is not None else ""
    written = io.BytesIO()
    plain = fastavro.parse_schema(json.loads(json.dumps(schema).replace("logicalType", "was")))
    fastavro.schemaless_writer(written, plain, record)
    written.seek(0)
    try:
        fastavro.schemaless_reader(written, fastavro.parse_schema(schema), None)
        can_be_shown = largest_of(schema, record) < 2**53
    except (OverflowError, ValueError):
        can_be_shown = False
    if not problem:
        assert can_be_shown
    elif "1970" not in problem:
        # Readers can show times before 1970, too; the mesh has none.
        assert not can_be_shown


def test_the_field_is_named_however_deep_it_lies() -> None:
    moment = {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]}
    inner = {"type": "record", "name": "Inner", "fields": [moment, {"name": "n", "type": "int"}]}
    items = {"type": "array", "items": inner}
    fields = [{"name": "text", "type": "string"}, {"name": "all", "type": {**items}}]
    check = check_of({"type": "record", "name": "Outer", "fields": fields})
    assert check is not None
    record = {"text": "", "all": [{"at": None, "n": 1}, {"at": 2**62, "n": 1}]}
    assert check("", record) == (
        "expected all.at in milliseconds since 1970, up to the year 9999, got 4611686018427387904"
    )
