"""Avro in Confluent wire format: a zero byte, four bytes of schema id, the record.

Timestamps are plain integers, milliseconds since the epoch, on both sides.
"""

from __future__ import annotations

import io
import json
import struct
from importlib import resources
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError

from reviewmesh.runtime.registry import SchemaRegistry, UnknownSchemaId

HEADER = struct.Struct(">bI")


class DecodeError(ValueError):
    """Bytes that hold no record of ours; `cause` is that of the dead letter."""

    cause = "MALFORMED"


class Malformed(DecodeError):
    cause = "MALFORMED"


class UnknownSchema(DecodeError):
    cause = "UNKNOWN_SCHEMA"


class WrongSchema(DecodeError):
    cause = "INVALID"


def load_schema(name: str) -> dict[str, Any]:
    """The schema of `schemas/<name>.avsc` as it is registered."""
    text = resources.files("reviewmesh_schemas").joinpath(f"{name}.avsc").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def without_logical_types(schema: Any) -> Any:
    """The same schema whose timestamps are longs: no datetime is made only to be unmade."""
    if isinstance(schema, dict):
        return {
            key: without_logical_types(value)
            for key, value in schema.items()
            if key != "logicalType"
        }
    if isinstance(schema, list):
        return [without_logical_types(item) for item in schema]
    return schema


class Codec:
    """Encodes and decodes the records of one subject.

    RegistryUnavailable passes through both: it says nothing about the record.
    """

    def __init__(self, registry: SchemaRegistry, subject: str, schema_name: str) -> None:
        self._registry = registry
        self._subject = subject
        self._schema = load_schema(schema_name)
        self._parsed: Any = fastavro.parse_schema(without_logical_types(self._schema))
        self._name = self._schema["name"]
        self._header = b""
        # By schema id: the parsed writer's schema and the reader's to resolve it to, which is None
        # where both are the same: fastavro would compare them for every record.
        self._writers: dict[int, tuple[Any, Any]] = {}

    def prepare(self) -> None:
        """Learn the schema's id, so that `encode` needs no registry from then on."""
        if not self._header:
            self._header = HEADER.pack(0, self._registry.id_of(self._subject, self._schema))

    def encode(self, record: dict[str, Any]) -> bytes:
        self.prepare()
        buffer = io.BytesIO()
        buffer.write(self._header)
        fastavro.schemaless_writer(buffer, self._parsed, record)
        return buffer.getvalue()

    def decode(self, data: bytes) -> dict[str, Any]:
        """Raises a DecodeError that says what was expected and what came."""
        if len(data) < HEADER.size or data[0] != 0:
            raise Malformed(
                "expected Confluent wire format (a zero byte, 4 bytes of schema id, Avro), got "
                f"{len(data)} bytes that begin with {data[:5].hex() or 'nothing'}"
            )
        schema_id = HEADER.unpack_from(data)[1]
        writer, reader = self._writers.get(schema_id) or self._resolve(schema_id)
        buffer = io.BytesIO(data)
        buffer.seek(HEADER.size)
        try:
            record: Any = fastavro.schemaless_reader(buffer, writer, reader)
        except SchemaResolutionError as error:
            raise WrongSchema(
                f"schema id {schema_id} cannot be read as {self._name}: {error}"
            ) from error
        except (
            EOFError,
            ValueError,
            IndexError,
            OverflowError,
            MemoryError,
            KeyError,
            TypeError,
            struct.error,
        ) as error:
            raise Malformed(
                f"expected an Avro {self._name} of schema id {schema_id}, got {len(data)} bytes "
                f"that end or break off within it ({type(error).__name__})"
            ) from error
        if buffer.tell() != len(data):
            raise Malformed(
                f"expected an Avro {self._name} and nothing behind it, got "
                f"{len(data) - buffer.tell()} more bytes"
            )
        return record  # type: ignore[no-any-return]

    def _resolve(self, schema_id: int) -> tuple[Any, Any]:
        try:
            schema = self._registry.schema(schema_id)
        except UnknownSchemaId as error:
            raise UnknownSchema(
                f"{error}; register the schema before publishing with it"
            ) from error
        name = str(schema.get("name", schema.get("type")))
        if name.rpartition(".")[2] != self._name:
            raise WrongSchema(
                f"expected a {self._name} (subject {self._subject}), got a {name} "
                f"(schema id {schema_id})"
            )
        parsed: Any = fastavro.parse_schema(without_logical_types(schema))
        resolution = (parsed, None if parsed == self._parsed else self._parsed)
        self._writers[schema_id] = resolution
        return resolution
