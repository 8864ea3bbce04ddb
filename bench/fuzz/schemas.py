"""Schemas of made-up writers: most are Reviews that were changed, some take a reader long."""

from __future__ import annotations

import copy
import functools
import random
from typing import Any

import fastavro

from reviewmesh.avro.codec import load_schema, without_logical_types
from reviewmesh.avro.registry import UnknownSchemaId, UnusableSchema
from reviewmesh.avro.topics import load_topics

TOPICS = {topic.name: topic for topic in load_topics().topics}
OUR_IDS = {TOPICS[name].schema: number for number, name in enumerate(TOPICS, 1)}
FIRST_STRANGER = 100
STRANGERS = 5_000
KEPT_SCHEMAS = 500
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL = (
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "timestamp-nanos"),
    ("long", "local-timestamp-micros"),
    ("int", "date"),
    ("int", "time-millis"),
    ("string", "uuid"),
    ("bytes", "decimal"),
    ("long", "acme-ticks"),
)
REVIEW = load_schema("review")


class Schemas:
    """Writers' schemas, each made up from its id alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = functools.lru_cache(KEPT_SCHEMAS)(self._make)
        self._parsed = functools.lru_cache(KEPT_SCHEMAS)(self._parse)

    def refuses(self, schema_id: int) -> bool:
        return False

    def schema(self, schema_id: int) -> Any:
        made = self._made(schema_id)
        if isinstance(made, LookupError):
            raise made.with_traceback(None)
        return made

    def parsed(self, schema_id: int) -> Any:
        """For writing, where that is possible; else None."""
        return self._parsed(schema_id)

    def _make(self, schema_id: int) -> Any:
        for name, own in OUR_IDS.items():
            if own == schema_id:
                return load_schema(name)
        rng = random.Random(f"{self._seed}/{schema_id}")
        kind = rng.random()
        if schema_id >= FIRST_STRANGER + STRANGERS or kind < 0.1:
            return UnknownSchemaId(f"the registry knows no schema of id {schema_id}")
        if kind < 0.15:
            return UnusableSchema(f"schema id {schema_id} is one of type PROTOBUF")
        return odd_json(rng) if kind < 0.2 else stranger(rng)

    def _parse(self, schema_id: int) -> Any:
        try:
            return fastavro.parse_schema(without_logical_types(self.schema(schema_id)))
        except Exception:  # noqa: BLE001 - made up at random, many are no schema at all
            return None

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        return next(OUR_IDS[name] for name in OUR_IDS if load_schema(name) == schema)


def stranger(rng: random.Random) -> Any:
    """Review, changed in up to four ways."""
    schema = copy.deepcopy(REVIEW)
    for number in range(rng.randrange(5)):
        fields = schema["fields"]
        way = rng.randrange(9)
        chosen = rng.choice(fields) if fields else {}
        if way == 0 and fields:
            fields.remove(chosen)
        elif way == 1 and fields:
            chosen["name"] = rng.choice(("body", "text", "review_id", "", "Text"))
        elif way == 2:
            rng.shuffle(fields)
        elif way == 3:
            schema["namespace"] = rng.choice(("acme", "", "a.b.c", 3))
        elif way == 4 and fields:
            chosen["type"] = nullable(rng, logical(rng))
            chosen.pop("default", None)
        elif way == 5 and fields:
            chosen["type"] = a_type(rng, 0)
        elif way == 6:
            fields.append({"name": f"odd{number}", "type": monster(rng)})
        else:
            fields.append({"name": f"extra{number}", "type": a_type(rng, 0), "default": None})
    return rng.choice((schema, schema, schema, schema, [schema], [schema, "null"]))


def logical(rng: random.Random) -> Any:
    kind, name = rng.choice(LOGICAL)
    return {"type": kind, "logicalType": name, "precision": 4, "scale": 2}


def nullable(rng: random.Random, schema: Any) -> Any:
    return ["null", schema] if rng.random() < 0.5 else schema


def a_type(rng: random.Random, depth: int) -> Any:
    way = rng.randrange(14 if depth < 4 else 8)
    name = f"T{rng.randrange(10**9)}"
    if way < 7:
        return rng.choice(PRIMITIVES)
    if way == 7:
        return logical(rng)
    if way == 8:
        return {"type": "array", "items": a_type(rng, depth + 1)}
    if way == 9:
        return {"type": "map", "values": a_type(rng, depth + 1)}
    if way == 10:
        return {"type": "enum", "name": name, "symbols": ["A", "B", "C"][: rng.randrange(4)]}
    if way == 11:
        return {"type": "fixed", "name": name, "size": rng.choice((0, 1, 16, 2**40, -1, "x"))}
    if way == 12:
        return [a_type(rng, depth + 1) for _ in range(rng.randrange(4))]
    inner = [{"name": f"f{n}", "type": a_type(rng, depth + 1)} for n in range(rng.randrange(4))]
    return {"type": "record", "name": name, "fields": inner}


def monster(rng: random.Random) -> Any:
    """What takes a reader without bounds long, or down."""
    way = rng.randrange(7)
    if way == 0:
        return {"type": "array", "items": rng.choice(("null", a_record("Nothing", [])))}
    if way == 1:
        return a_record("Node", [["null", "Node"]])
    if way == 2:
        return "reviewmesh.v1.Review"
    if way == 3:
        return "acme.Elsewhere"
    if way == 4:
        schema: Any = "null"
        for level in range(rng.choice((3, 12, 40))):
            again = schema["name"] if isinstance(schema, dict) else schema
            schema = a_record(f"Level{level}", [schema, again])
        return {"type": "array", "items": a_record("Item", ["int", schema])}
    if way == 5:
        schema = "string"
        for _ in range(rng.choice((20, 60, 900))):
            schema = {"type": "array", "items": schema}
        return schema
    return a_record("Wide", ["string"] * rng.choice((100, 5_000)))


def a_record(name: str, types: list[Any]) -> dict[str, Any]:
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


def odd_json(rng: random.Random) -> Any:
    return rng.choice(
        (
            "string", "Review", 3, None, True, [], {}, [[]], {"type": "record"}, {"name": "Review"},
            {"type": "record", "name": "Review"}, {"type": "record", "name": "Review", "fields": 3},
            {"type": "record", "name": "Review", "fields": [3, None]}, {"type": {"type": []}},
            {"type": "record", "name": ["Review"], "fields": []},
            {"type": "enum", "name": "Review"},
            {"type": "record", "name": "Review", "fields": [{"name": "review_id"}]},
            {"type": "record", "name": "Review", "fields": [{"name": "text", "type": None}]},
        )
    )  # fmt: skip
