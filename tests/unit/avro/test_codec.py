"""Records written with schemas that strangers registered: read, or refused in bounded time."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import fastavro
import pytest

from reviewmesh.avro import writers
from reviewmesh.avro.codec import HEADER, Codec, DecodeError, load_schema
from reviewmesh.avro.registry import UnknownSchemaId
from reviewmesh.avro.writers import MAX_DEPTH, MAX_NODES, PRIMITIVES

REVIEW = load_schema("review")
FULL: dict[str, Any] = {
    **{field["name"]: None for field in REVIEW["fields"]},
    "review_id": "r-1",
    "text": "Anna was great.",
    "attributes": {},
}
LONGEST_MESSAGE = 1_000


class Registered:
    """A registry's answers without the registry: one schema under the id 7."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def refuses(self, schema_id: int) -> bool:
        return False

    def schema(self, schema_id: int) -> Any:
        if schema_id != 7:
            raise UnknownSchemaId(f"the registry knows no schema of id {schema_id}")
        return self._schema

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        return 7


def codec(schema: Any, max_bytes: int | None = None) -> Codec:
    return Codec(Registered(schema), "reviews.raw-value", "review", max_bytes)  # type: ignore[arg-type]


def changed(**types: Any) -> dict[str, Any]:
    """Review with other types of fields; one that is new is added."""
    schema = copy.deepcopy(REVIEW)
    for name, kind in types.items():
        schema["fields"] = [field for field in schema["fields"] if field["name"] != name]
        schema["fields"].append({"name": name, "type": kind})
    return schema


def written(schema: Any, record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO(HEADER.pack(0, 7))
    buffer.seek(HEADER.size)
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), record)
    return buffer.getvalue()


def refusal(schema: Any, data: bytes, max_bytes: int | None = None) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        codec(schema, max_bytes).decode(data)
    assert len(str(caught.value)) < LONGEST_MESSAGE
    return caught.value


def nested(depth: int) -> Any:
    schema: Any = "string"
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubled(times: int) -> Any:
    """A record of two of a record of two …: 2 ** `times` nulls, each in no byte at all."""
    schema: Any = "null"
    for level in range(times):
        name = f"Level{level}"
        second = name_of(schema)
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": second}]
        schema = {"type": "record", "name": name, "fields": fields}
    return schema


def name_of(schema: Any) -> Any:
    return schema["name"] if isinstance(schema, dict) else schema


def record_of(*types: Any) -> dict[str, Any]:
    fields = [{"name": f"f{n}", "type": kind} for n, kind in enumerate(types)]
    return {"type": "record", "name": "Item", "fields": fields}


def items(kind: Any) -> Any:
    return changed(photos={"type": "array", "items": kind})


RECURSIVE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "next", "type": ["null", "Node"]}],
}
UNREADABLE = {
    "a union at the top": ([record_of("string"), REVIEW], "got a union of 2 types"),
    "a primitive": ("string", "got string"),
    "a number": (3, "got int"),
    "another record": (record_of("string"), "got a record Item"),
    "an enum of our name": ({"type": "enum", "name": "Review", "symbols": ["A"]}, "got enum"),
    "recursion": (changed(node=RECURSIVE), "no type within itself, got Node"),
    "recursion of the whole": (changed(node=["null", "Review"]), "no type within itself"),
    "nesting": (changed(deep=nested(900)), f"nested at most {MAX_DEPTH} deep"),
    "many types": (changed(wide=record_of(*["string"] * MAX_NODES)), f"at most {MAX_NODES:,}"),
    "types used again and again": (changed(wide=doubled(30)), f"at most {MAX_NODES:,}"),
    "a type from elsewhere": (changed(device="acme.Device"), "to be defined in it"),
    "an empty union": (changed(odd=[]), "got an empty one"),
    "a record without fields": (changed(odd={"type": "record", "name": "X"}), "expected fields"),
    "a record without a name": (changed(odd={"type": "record", "fields": []}), "expected a name"),
    "a field without a name": (
        changed(odd={"type": "record", "name": "X", "fields": [{}]}),
        "field with a name",
    ),
    "a fixed type without a size": (changed(odd={"type": "fixed", "name": "X"}), "the size"),
    "an enum without symbols": (changed(odd={"type": "enum", "name": "X"}), "valid Avro schema"),
    "items of null": (items("null"), "take at least a byte, got null"),
    "items of nothing": (items(record_of()), "take at least a byte, got record Item"),
    "items of nulls": (items(record_of("null", record_of())), "take at least a byte"),
    "items of fixed 0": (items({"type": "fixed", "name": "F", "size": 0}), "at least a byte"),
    "items of much in a byte": (items(record_of("int", *["null"] * 200)), "types for each byte"),
    "a union of much in a byte": (items(["null", record_of(*["null"] * 200)]), "for each byte"),
    "no review_id": (
        {**REVIEW, "fields": REVIEW["fields"][1:]},
        "expected a field review_id, got none among business_id, text",
    ),
    "text of another name": (
        json.loads(json.dumps(REVIEW).replace('"text"', '"body"')),
        "expected a field text, got none among review_id, business_id, body",
    ),
    "decimal stars": (
        changed(stars={"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1}),
        "field stars: expected no logical type, got bytes (decimal)",
    ),
    "stars as a date": (
        changed(stars=["null", {"type": "int", "logicalType": "date"}]),
        "field stars: expected no logical type, got int (date)",
    ),
    "a time of day": (
        changed(created_at={"type": "int", "logicalType": "time-millis"}),
        "field created_at: expected one of the timestamp types, got int (time-millis)",
    ),
    "two units of time": (
        changed(created_at=["int", {"type": "long", "logicalType": "timestamp-micros"}]),
        "field created_at: expected one of the timestamp types, got int or long (timestamp-micros)",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_schema_that_cannot_be_read_with_is_invalid_and_says_why(case: str) -> None:
    schema, said = UNREADABLE[case]
    error = refusal(schema, HEADER.pack(0, 7) + b"\x00" * 100)
    assert error.cause == "INVALID"
    assert said in str(error)


@pytest.mark.parametrize(
    ("name", "kind", "value", "came"),
    [
        ("text", "long", 3, "expected null or string, got long"),
        ("text", ["null", "long"], 3, "expected null or string, got null or long"),
        ("review_id", ["null", "string"], None, "expected string, got null or string"),
        (
            "review_id",
            {"type": "fixed", "name": "Id", "size": 2},
            b"ab",
            "got fixed reviewmesh",
        ),
        ("stars", "string", "5", "expected null or double, got string"),
        ("created_at", "double", 1.5, "expected null or long (timestamp-millis), got double"),
        ("attributes", {"type": "map", "values": "long"}, {"a": 1}, "got map of long"),
    ],
)
def test_a_field_of_another_type_is_named_with_what_came(
    name: str, kind: Any, value: Any, came: str
) -> None:
    schema = changed(**{name: kind})
    error = refusal(schema, written(schema, {**FULL, name: value}))
    assert error.cause == "INVALID"
    assert f"field {name}: " in str(error)
    assert came in str(error)


def test_bytes_that_are_not_utf_8_are_named_so() -> None:
    schema = changed(title="bytes")
    error = refusal(schema, written(schema, {**FULL, "title": "Café".encode("latin-1")}))
    assert error.cause == "MALFORMED"
    assert "field title: expected text in UTF-8, got other bytes (0xe9 at byte 3)" in str(error)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ({"type": "long"}, 1_700_000_000_000, 1_700_000_000_000),
        ({"type": "long", "logicalType": "timestamp-millis"}, 1_700_000_000_123, 1_700_000_000_123),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, 17, 17),
        (
            {"type": "long", "logicalType": "timestamp-micros"},
            1_700_000_000_123_999,
            1_700_000_000_123,
        ),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, 17_000, 17),
        ({"type": "long", "logicalType": "timestamp-nanos"}, 17_000_000_000_000, 17_000_000),
        ({"type": "int", "logicalType": "date"}, 19_000, 19_000 * 86_400_000),
        ({"type": "long", "logicalType": "acme-ticks"}, 17, 17),
        ("int", 17, 17),
    ],
    ids=str,
)
@pytest.mark.parametrize("nullable", [False, True])
def test_the_writers_unit_of_time_is_converted(
    kind: Any, value: int, expected: int, nullable: bool
) -> None:
    schema = changed(created_at=["null", kind] if nullable else kind)
    plain = json.loads(json.dumps(schema).replace("logicalType", "ignored"))
    decoded = codec(schema).decode(written(plain, {**FULL, "created_at": value}))
    assert decoded["created_at"] == expected
    if nullable:
        assert codec(schema).decode(written(plain, FULL))["created_at"] is None


@pytest.mark.parametrize(
    "schema",
    [
        changed(review_id={"type": "string", "logicalType": "uuid"}),
        changed(text="string", stars="int", attributes={"type": "map", "values": "bytes"}),
        changed(photos={"type": "array", "items": record_of("string", ["null", "int"])}),
        changed(rank={"type": "enum", "name": "Rank", "symbols": ["A", "B"]}),
        changed(both=record_of(RECURSIVE | {"fields": []}, "Node")),
        changed(ratings={"type": "map", "values": "null"}),
        changed(deep=nested(20)),
        {**REVIEW, "namespace": "com.acme", "aliases": ["Old"], "doc": "Ours."},
    ],
    ids=range(8),
)
def test_schemas_of_others_are_read(schema: Any) -> None:
    extra = {
        "photos": [{"f0": "a", "f1": 3}],
        "rank": "B",
        "both": {"f0": {}, "f1": {}},
        "ratings": {"a": None},
        "deep": [],
    }
    record = {**FULL, **extra, "stars": 4, "attributes": {}}
    decoded = codec(schema).decode(written(schema, record))
    assert decoded == {**FULL, "stars": 4}


@pytest.mark.parametrize("default", [None, 1.5, {"a": 1}])
def test_a_default_that_does_not_fit_is_no_matter_to_a_reader(default: Any) -> None:
    schema = changed(country=["string", "null"])
    data = written(schema, {**FULL, "country": "NL"})
    schema["fields"][-1]["default"] = default
    assert codec(schema).decode(data) == FULL


@pytest.mark.parametrize("count", [b"\xfe\xff\xff\xff\x0f", b"\x80" * 9 + b"\x01", b"\xff" * 40])
def test_a_count_that_the_bytes_do_not_hold_is_malformed(count: bytes) -> None:
    schema = changed(photos={"type": "array", "items": "string"})
    data = written(REVIEW, FULL)
    assert refusal(schema, data + count).cause == "MALFORMED"


def test_a_record_over_the_limit_is_oversize_before_it_is_read() -> None:
    data = written(REVIEW, {**FULL, "text": "so good! " * 100})
    assert codec(REVIEW, len(data)).decode(data)["review_id"] == "r-1"
    error = refusal("never asked for", data, len(data) - 1)
    assert error.cause == "OVERSIZE"
    assert "before compression" in str(error)


def test_only_so_many_schemas_are_kept() -> None:
    taken = codec(REVIEW)
    taken._registry.schema = lambda schema_id: REVIEW  # type: ignore[method-assign]
    body = written(REVIEW, FULL)[HEADER.size :]
    for schema_id in range(1_500):
        assert taken.decode(HEADER.pack(0, schema_id) + body) == FULL
    assert len(taken._resolutions) == 1_000


def test_what_is_wrong_with_a_schema_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than to read a record, and may come with every record."""
    judged: list[Any] = []
    check = writers.check_bounded

    def noted(schema: Any) -> None:
        judged.append(schema)
        check(schema)

    monkeypatch.setattr(writers, "check_bounded", noted)
    reader = codec(items("null"))
    for _ in range(3):
        with pytest.raises(DecodeError, match="take at least a byte"):
            reader.decode(HEADER.pack(0, 7))
    assert len(judged) == 1
    assert reader.knows(7)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "kind",
    [*(name for name in PRIMITIVES if name != "null"), {"type": "fixed", "name": "F", "size": 4}],
    ids=str,
)
def test_items_that_are_skipped_end_with_the_bytes(kind: Any) -> None:
    """fastavro does not look whether there was anything to skip."""
    schema = items(kind)
    count = b"\x80" * 8 + b"\x01"
    data = written(REVIEW, FULL) + count
    assert refusal(schema, data).cause == "MALFORMED"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "kind", [*PRIMITIVES, ["null", "double"], record_of("double", "int"), nested(2)], ids=str
)
@pytest.mark.parametrize("name", ["array", "map"])
def test_a_count_beyond_the_bytes_is_refused_at_once_whatever_is_counted(
    kind: Any, name: str
) -> None:
    """Skipped or explained: with one more mistake, each field is read alone."""
    counted = {"type": name, "items" if name == "array" else "values": kind}
    for schema in (changed(odd=counted), changed(odd=counted, stars=["null", counted])):
        data = written(REVIEW, FULL) + bytes.fromhex("808080808040")
        assert refusal(schema, data).cause in ("INVALID", "MALFORMED")
