"""Avro in Confluent wire format: a zero byte, four bytes of schema id, the record.

Timestamps are plain integers, milliseconds since the epoch, whatever the unit of the writer's
logical type.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple

import fastavro
from fastavro.read import SchemaResolutionError

from reviewmesh.avro import writers
from reviewmesh.avro.bounds import TIMESTAMP, check_of
from reviewmesh.avro.branches import naming_of
from reviewmesh.avro.registry import SchemaRegistry, UnknownSchemaId, UnusableSchema
from reviewmesh.avro.writers import UnusableWriter, described, printable

HEADER = struct.Struct(">bI")
# Cached resolutions of schema ids; the oldest is evicted.
KEPT_WRITERS = 1_000
LONGEST_REASON = 300
# Fields with a default, as the contract requires of all but identity, that a writer's schema must
# have all the same: without them, the field most likely has another name there.
NEEDED = {"Review": ("text",)}


class DecodeError(ValueError):
    """Bytes that are no valid record; `cause` is that of the dead letter."""

    cause = "MALFORMED"


class Malformed(DecodeError):
    cause = "MALFORMED"


class UnknownSchema(DecodeError):
    cause = "UNKNOWN_SCHEMA"


class WrongSchema(DecodeError):
    cause = "INVALID"


class Oversize(DecodeError):
    cause = "OVERSIZE"


class OutOfRange(DecodeError):
    cause = "INVALID"


class Resolution(NamedTuple):
    """How records of one schema id are read."""

    # Without logical types, like the reader's.
    writer: Any
    # None where it equals the writer's: fastavro would compare them for every record.
    reader: Any
    # Conversions of timestamps that the writer counts in another unit.
    convert: tuple[tuple[str, Callable[[int], int]], ...]


def load_schema(name: str) -> dict[str, Any]:
    """The schema of `schemas/<name>.avsc` as it is registered."""
    text = resources.files("reviewmesh_schemas").joinpath(f"{name}.avsc").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def without_logical_types(schema: Any) -> Any:
    """The same schema with timestamps as longs: avoids datetime objects."""
    if isinstance(schema, dict):
        return {
            key: without_logical_types(value)
            for key, value in schema.items()
            if key != "logicalType"
        }
    if isinstance(schema, list):
        return [without_logical_types(item) for item in schema]
    return schema


class Whole(io.BytesIO):
    """A buffer that raises EOFError when read beyond its end.

    fastavro skips unknown fields without checking that their bytes exist: an array of 2^50 floats
    in ten bytes would take it years.
    """

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        if size is None or len(found) != size:
            raise EOFError(f"expected {size} bytes, got {len(found)}")
        return found


class Codec:
    """Encodes and decodes the records of one subject.

    Both raise RegistryUnavailable, which says nothing about the record.
    """

    def __init__(
        self,
        registry: SchemaRegistry,
        subject: str,
        schema_name: str,
        max_bytes: int | None = None,
    ) -> None:
        self._registry = registry
        self._subject = subject
        self._max_bytes = max_bytes
        self._schema = load_schema(schema_name)
        self._essential = writers.essential(self._schema)
        self._parsed: Any = fastavro.parse_schema(without_logical_types(self._schema))
        self._naming = naming_of(self._parsed)
        self._name = self._schema["name"]
        self._check = check_of(self._schema)
        self._header = b""
        # By schema id: a resolution, or why there is none.
        self._resolutions: dict[int, Resolution | str] = {}

    def prepare(self) -> None:
        """Fetch the schema's id, so that `encode` needs no registry afterwards."""
        if not self._header:
            schema_id = self._registry.id_of(self._subject, self._schema)
            self._keep(schema_id, Resolution(self._parsed, None, ()))
            self._header = HEADER.pack(0, schema_id)

    def encode(self, record: dict[str, Any]) -> bytes:
        self.prepare()
        buffer = io.BytesIO()
        buffer.write(self._header)
        named = record if self._naming is None else self._naming(record)
        fastavro.schemaless_writer(buffer, self._parsed, named)
        return buffer.getvalue()

    def decode(self, data: bytes) -> dict[str, Any]:
        """Raises a DecodeError that says what was expected and what came."""
        schema_id = self.schema_id_of(data)
        resolution = self._resolutions.get(schema_id) or self._resolve(schema_id)
        if isinstance(resolution, str):
            raise WrongSchema(resolution)
        # `Whole` is slower, and needed only where fields may be skipped.
        buffer = io.BytesIO(data) if resolution.reader is None else Whole(data)
        buffer.seek(HEADER.size)
        try:
            record: Any = fastavro.schemaless_reader(buffer, resolution.writer, resolution.reader)
        except Exception as error:
            raise self._explained(data, schema_id, resolution, error) from error
        if buffer.tell() != len(data):
            raise Malformed(
                f"expected an Avro {self._name} and nothing behind it, got "
                f"{len(data) - buffer.tell()} more bytes"
            )
        for field, convert in resolution.convert:
            if record[field] is not None:
                record[field] = convert(record[field])
        return record  # type: ignore[no-any-return]

    def decode_ours(self, data: bytes) -> dict[str, Any]:
        """As `decode`, for topics that only the mesh should write to. Their values are published
        again,
        so their numbers are checked too."""
        record = self.decode(data)
        if self._check is not None and (problem := self._check("", record)):
            raise OutOfRange(problem)
        return record

    def schema_id_of(self, data: bytes) -> int:
        """Raises Oversize or Malformed where the bytes cannot hold a valid record."""
        if self._max_bytes is not None and len(data) > self._max_bytes:
            raise Oversize(
                f"expected a {self._name} of at most {self._max_bytes:,} bytes, got {len(data):,}; "
                "the limit counts bytes before compression"
            )
        if len(data) < HEADER.size or data[0] != 0:
            raise Malformed(
                "expected Confluent wire format (a zero byte, 4 bytes of schema id, Avro), got "
                f"{len(data)} bytes that begin with {data[:5].hex() or 'nothing'}"
            )
        return int(HEADER.unpack_from(data)[1])

    def knows(self, schema_id: int) -> bool:
        """Whether `decode` needs no request to the registry."""
        return schema_id in self._resolutions or self._registry.refuses(schema_id)

    def look_up(self, schema_id: int) -> None:
        """Request the schema now, from any thread, so that `decode` need not."""
        self._registry.schema(schema_id)

    # -- the writer's schema -------------------------------------------------------------------

    def _resolve(self, schema_id: int) -> Resolution | str:
        try:
            schema = self._registry.schema(schema_id)
        except UnknownSchemaId as error:
            raise UnknownSchema(
                f"{error}; register the schema before publishing with it"
            ) from error
        except UnusableSchema as error:
            raise WrongSchema(f"expected an Avro {self._name}: {error}") from error
        resolution: Resolution | str
        try:
            resolution = self._judge(schema)
        except UnusableWriter as error:
            resolution = (
                f"schema id {schema_id} cannot be read as {self._name} (subject {self._subject}): "
                f"{error}"
            )
        self._keep(schema_id, resolution)
        return resolution

    def _keep(self, schema_id: int, resolution: Resolution | str) -> None:
        self._resolutions[schema_id] = resolution
        if len(self._resolutions) > KEPT_WRITERS:
            del self._resolutions[next(iter(self._resolutions))]

    def _judge(self, schema: Any) -> Resolution:
        """Raises UnusableWriter."""
        if isinstance(schema, list):
            raise UnusableWriter(f"expected a record, got a union of {len(schema)} types")
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise UnusableWriter(f"expected a record, got {described(schema)}")
        name = str(schema.get("name"))
        if name.rpartition(".")[2] != self._name:
            raise UnusableWriter(f"expected a record {self._name}, got a record {printable(name)}")
        writers.check_bounded(schema)
        essential = writers.essential(schema)
        if essential == self._essential:
            return Resolution(self._parsed, None, ())
        convert = self._conversions({field["name"]: field["type"] for field in schema["fields"]})
        try:
            parsed = fastavro.parse_schema(without_logical_types(essential))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            raise UnusableWriter(f"expected a valid Avro schema, got {reason}") from error
        return Resolution(parsed, self._parsed, convert)

    def _conversions(self, written: dict[str, Any]) -> tuple[tuple[str, Callable[[int], int]], ...]:
        """The conversions to plain values; raises UnusableWriter where there is none."""
        found = []
        for field in self._schema["fields"]:
            name = field["name"]
            if name not in written:
                if "default" not in field or name in NEEDED.get(self._name, ()):
                    raise UnusableWriter(
                        f"expected a field {name}, got none among "
                        f"{printable(', '.join(written))}; check the field's name"
                    )
                continue
            try:
                if _is_timestamp(field["type"]):
                    if convert := writers.to_milliseconds(written[name]):
                        found.append((name, convert))
                elif _is_plain(field["type"]):
                    writers.check_plain(written[name])
            except UnusableWriter as error:
                raise UnusableWriter(f"field {name}: {error}") from error
        return tuple(found)

    # -- what is wrong with a record -----------------------------------------------------------

    def _explained(
        self, data: bytes, schema_id: int, resolution: Resolution, error: Exception
    ) -> DecodeError:
        if isinstance(error, SchemaResolutionError):
            field = self._first_that_raises(SchemaResolutionError, data, resolution)
            return WrongSchema(
                f"schema id {schema_id} cannot be read as {self._name}: field {field['name']}: "
                f"expected {described(field['type'])}, got {_written_as(resolution.writer, field)}"
            )
        if isinstance(error, UnicodeDecodeError):
            field = self._first_that_raises(UnicodeDecodeError, data, resolution)
            return Malformed(
                f"field {field['name']}: expected text in UTF-8, got other bytes "
                f"(0x{error.object[error.start]:02x} at byte {error.start}); convert Latin-1 and "
                "the like before publishing"
            )
        return Malformed(
            f"expected an Avro {self._name} of schema id {schema_id}, got {len(data)} bytes "
            f"that end or break off within it ({type(error).__name__})"
        )

    def _first_that_raises(
        self, kind: type[Exception], data: bytes, resolution: Resolution
    ) -> dict[str, Any]:
        """The field that cannot be read even when all others are skipped."""
        for field in self._schema["fields"]:
            alone = without_logical_types({**self._schema, "fields": [field]})
            buffer = Whole(data[HEADER.size :])
            try:
                fastavro.schemaless_reader(buffer, resolution.writer, fastavro.parse_schema(alone))
            except kind:
                return dict(field)
            except Exception:  # noqa: BLE001 - another error
                continue
        return {"name": "unknown", "type": "another type"}


def _is_timestamp(schema: Any) -> bool:
    branches = schema if isinstance(schema, list) else [schema]
    return any(
        isinstance(branch, dict) and branch.get("logicalType") == TIMESTAMP for branch in branches
    )


def _is_plain(schema: Any) -> bool:
    """Whether it contains no record type."""
    if isinstance(schema, list):
        return all(_is_plain(branch) for branch in schema)
    if not isinstance(schema, dict):
        return True
    kind = schema.get("type")
    return kind != "record" and all(_is_plain(schema.get(key)) for key in ("items", "values"))


def _written_as(writer: Any, field: dict[str, Any]) -> str:
    for written in writer["fields"]:
        if written["name"] == field["name"]:
            return described(written["type"])
    return "nothing"
