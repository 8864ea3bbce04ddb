"""Validates and reduces writers' schemas before fastavro uses them.

The cost of reading depends on the writer's schema, not on the record's size: recursion crashes the
process in C, and an array of nulls has 2^40 items in six bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_DEPTH = 32
MAX_NODES = 2_000
# Types within an array item or map value, per byte of its smallest size.
MAX_NODES_A_BYTE = 64
LONGEST_NAME = 100
NAMED = ("record", "error", "enum", "fixed")
PRIMITIVES = {
    "null": 0,
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "bytes": 1,
    "string": 1,
}
UNNAMED = (*PRIMITIVES, "array", "map")
# Conversions of logical types to milliseconds since the epoch. Unknown logical types are ignored,
# as
# Avro specifies.
MILLISECONDS: dict[str | None, Callable[[int], int]] = {
    None: lambda value: value,
    "timestamp-millis": lambda value: value,
    "local-timestamp-millis": lambda value: value,
    "timestamp-micros": lambda value: value // 1_000,
    "local-timestamp-micros": lambda value: value // 1_000,
    "timestamp-nanos": lambda value: value // 1_000_000,
    "local-timestamp-nanos": lambda value: value // 1_000_000,
    "date": lambda value: value * 86_400_000,
}
# Their values must not be read as plain numbers or text.
NOT_PLAIN = {
    "decimal",
    "big-decimal",
    "duration",
    "time-millis",
    "time-micros",
    *(name for name in MILLISECONDS if name is not None),
}


class UnusableWriter(ValueError):
    """The schema cannot be used; the message says what was expected and what came."""


class _Judge:
    """Walks a schema once; a named type counts in full wherever it is used."""

    def __init__(self) -> None:
        self._nodes = 0
        # By full name: smallest size in bytes and number of nodes, None while it is being defined.
        self._named: dict[str, tuple[int, int] | None] = {}

    def measure(self, schema: Any, namespace: str = "", depth: int = 1) -> tuple[int, int]:
        """The smallest size of a value in bytes, and the nodes visited to read it."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnusableWriter(f"expected at most {MAX_NODES:,} types in it, got more")
        if depth > MAX_DEPTH:
            raise UnusableWriter(f"expected types nested at most {MAX_DEPTH} deep, got deeper ones")
        if isinstance(schema, list):
            return self._union([self.measure(one, namespace, depth + 1) for one in schema])
        if isinstance(schema, str):
            return self._reference(schema, namespace)
        if not isinstance(schema, dict):
            raise UnusableWriter(f"expected a type, got {printable(schema)}")
        kind = schema.get("type")
        if kind in ("record", "error"):
            return self._record(schema, namespace, depth)
        if kind == "enum":
            return self._define(schema, namespace, (1, 1))
        if kind == "fixed":
            return self._define(schema, namespace, (_size(schema), 1))
        if kind == "array":
            return self._items(schema.get("items"), namespace, depth, least=0)
        if kind == "map":
            return self._items(schema.get("values"), namespace, depth, least=1)
        return self.measure(kind, namespace, depth + 1)

    def _reference(self, name: str, namespace: str) -> tuple[int, int]:
        if name in PRIMITIVES:
            return PRIMITIVES[name], 1
        for full in (_full_name(name, namespace), name):
            if full in self._named:
                measured = self._named[full]
                if measured is None:
                    raise UnusableWriter(f"expected no type within itself, got {printable(name)}")
                return measured
        raise UnusableWriter(f"expected every type to be defined in it, got {printable(name)}")

    def _union(self, branches: list[tuple[int, int]]) -> tuple[int, int]:
        if not branches:
            raise UnusableWriter("expected a type in every union, got an empty one")
        return self._within(
            1 + min(least for least, _ in branches), 1 + max(nodes for _, nodes in branches)
        )

    def _record(self, schema: dict[str, Any], namespace: str, depth: int) -> tuple[int, int]:
        name = _full_name(schema.get("name"), str(schema.get("namespace") or namespace))
        self._named[name] = None
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise UnusableWriter(f"expected fields in the record {printable(name)}, got none")
        inner = name.rpartition(".")[0]
        least, nodes = 0, 1
        for field in fields:
            if not isinstance(field, dict) or not isinstance(field.get("name"), str):
                raise UnusableWriter(f"expected a field with a name, got {printable(field)}")
            field_least, field_nodes = self.measure(field.get("type"), inner, depth + 1)
            least, nodes = least + field_least, nodes + field_nodes
        return self._define(schema, namespace, self._within(least, nodes))

    def _items(self, items: Any, namespace: str, depth: int, least: int) -> tuple[int, int]:
        bytes_each, nodes = self.measure(items, namespace, depth + 1)
        bytes_each += least
        if bytes_each == 0:
            raise UnusableWriter(
                f"expected array items that take at least a byte, got {described(items)}"
            )
        if nodes > MAX_NODES_A_BYTE * bytes_each:
            raise UnusableWriter(
                f"expected items of at most {MAX_NODES_A_BYTE} types for each byte that they take "
                f"at least, got {nodes:,} types in {bytes_each} bytes"
            )
        return 1, 1

    def _define(
        self, schema: dict[str, Any], namespace: str, measured: tuple[int, int]
    ) -> tuple[int, int]:
        name = _full_name(schema.get("name"), str(schema.get("namespace") or namespace))
        self._named[name] = measured
        return measured

    @staticmethod
    def _within(least: int, nodes: int) -> tuple[int, int]:
        if nodes > MAX_NODES:
            raise UnusableWriter(
                f"expected at most {MAX_NODES:,} types in a record, got more, each counted "
                "wherever it is used"
            )
        return least, nodes


def check_bounded(schema: Any) -> None:
    """Raises UnusableWriter where the cost of reading with it is unbounded."""
    _Judge().measure(schema)


def essential(schema: Any, namespace: str = "") -> Any:
    """The schema without what does not affect reading: docs, defaults, aliases.

    Names are full names: a registry may leave out a namespace that the type around has, too.
    """
    if isinstance(schema, list):
        return [essential(one, namespace) for one in schema]
    if isinstance(schema, str):
        return schema if schema in UNNAMED else _full_name(schema, namespace)
    if not isinstance(schema, dict):
        return schema
    kept = {key: schema[key] for key in ("logicalType", "size") if key in schema}
    kind = schema.get("type")
    if isinstance(kind, str) and kind in NAMED:
        kept["type"] = kind
        kept["name"] = _full_name(schema.get("name"), str(schema.get("namespace") or namespace))
        namespace = kept["name"].rpartition(".")[0]
    else:
        kept["type"] = essential(kind, namespace)
    for key in ("items", "values"):
        if key in schema:
            kept[key] = essential(schema[key], namespace)
    if "symbols" in schema:
        kept["symbols"] = list(schema["symbols"])
    if "fields" in schema:
        kept["fields"] = [
            {"name": field["name"], **essential({"type": field["type"]}, namespace)}
            for field in schema["fields"]
        ]
    return kept


def described(schema: Any) -> str:
    """A short description of a type, for messages."""
    if isinstance(schema, list):
        return printable(" or ".join(described(one) for one in schema[:4]) or "an empty union")
    if not isinstance(schema, dict):
        return printable(schema)
    kind = schema.get("type")
    if kind in ("record", "error", "enum", "fixed"):
        return printable(f"{kind} {schema.get('name')}")
    if kind == "array":
        return printable(f"array of {described(schema.get('items'))}")
    if kind == "map":
        return printable(f"map of {described(schema.get('values'))}")
    logical = schema.get("logicalType")
    return printable(f"{described(kind)} ({logical})" if logical else described(kind))


def printable(value: object) -> str:
    """A value of a foreign schema, printable and shortened."""
    text = value if isinstance(value, str) else type(value).__name__
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= LONGEST_NAME else text[:LONGEST_NAME] + "…"


def to_milliseconds(written: Any) -> Callable[[int], int] | None:
    """The conversion of this type to milliseconds; None where it is in milliseconds already.

    Raises UnusableWriter for a type that is no point in time.
    """
    found = {
        name if isinstance(name := branch.get("logicalType"), str) else None
        for branch in _numbers(written)
    }
    known = {name for name in found if name in MILLISECONDS or name in NOT_PLAIN}
    if not known:
        return None
    if len(found) > 1 or not known <= MILLISECONDS.keys():
        raise UnusableWriter(f"expected one of the timestamp types, got {described(written)}")
    convert = MILLISECONDS[known.pop()]
    return None if convert is MILLISECONDS["timestamp-millis"] else convert


def check_plain(written: Any) -> None:
    """Raises UnusableWriter where the plain value of a logical type would be read as another."""
    for branch in _annotated(written):
        if branch["logicalType"] in NOT_PLAIN:
            raise UnusableWriter(
                f"expected no logical type, got {described(branch)}; write the plain value"
            )


def _annotated(schema: Any) -> list[dict[str, Any]]:
    """The types with a logical type within a field's own type."""
    if isinstance(schema, list):
        return [found for one in schema for found in _annotated(one)]
    if not isinstance(schema, dict):
        return []
    inner = schema.get({"array": "items", "map": "values"}.get(str(schema.get("type")), "type"))
    own = [schema] if isinstance(schema.get("logicalType"), str) else []
    return own + (_annotated(inner) if not isinstance(inner, str) else [])


def _numbers(schema: Any) -> list[dict[str, Any]]:
    """The branches of a type that are whole numbers."""
    if isinstance(schema, list):
        return [found for one in schema for found in _numbers(one)]
    if isinstance(schema, str):
        return [{"type": schema}] if schema in ("int", "long") else []
    if not isinstance(schema, dict):
        return []
    if schema.get("type") in ("int", "long"):
        return [schema]
    return _numbers(schema.get("type")) if isinstance(schema.get("type"), (dict, list)) else []


def _full_name(name: object, namespace: str) -> str:
    if not isinstance(name, str) or not name:
        raise UnusableWriter(
            f"expected a name for every record, enum and fixed, got {printable(name)}"
        )
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _size(schema: dict[str, Any]) -> int:
    size = schema.get("size")
    if not isinstance(size, int) or size < 0:
        raise UnusableWriter(f"expected the size of a fixed type, got {printable(size)}")
    return size
