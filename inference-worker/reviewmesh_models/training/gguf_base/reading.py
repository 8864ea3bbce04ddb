"""A GGUF file, read by llama.cpp's own package `gguf`; every value is checked as it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from gguf import GGUFReader, ReaderTensor

LARGEST: Final = 4 * 1024**3
"""Bytes of a file: all weights are in memory at once, of 4 bits as four times as many bytes."""

_T = TypeVar("_T", str, int, float, bool)


class GgufError(ValueError):
    """A GGUF file that no base can be made of; the message says what is wrong."""


class GgufContent:
    """Metadata and tensors of a file. Raises GgufError."""

    def __init__(self, file: Path) -> None:
        size = file.stat().st_size
        if size > LARGEST:
            raise GgufError(f"expected at most {LARGEST:,} bytes, found {size:,}")
        try:
            reader = _WithinFile(file)
            values = {name: field.contents() for name, field in reader.fields.items()}
        # What its parser raises where a file is broken.
        except (ValueError, KeyError, IndexError, OverflowError, RecursionError) as error:
            raise GgufError(f"expected a whole GGUF file, {error}") from error
        if reader.byte_order != "I":
            raise GgufError("expected a little-endian file, found a big-endian one")
        self.values: Final[Mapping[str, Any]] = values
        self.tensors: Final[Mapping[str, ReaderTensor]] = {one.name: one for one in reader.tensors}

    def one(self, key: str, kind: type[_T]) -> _T:
        """A single value that has to be there."""
        value = self.values.get(key)
        # A bool is an int to Python.
        if type(value) is not kind:
            raise GgufError(f"expected {key} in the metadata, of {kind.__name__}, {_found(value)}")
        return value

    def optional(self, key: str, kind: type[_T]) -> _T | None:
        return self.one(key, kind) if key in self.values else None

    def several(self, key: str, kind: type[_T]) -> list[_T]:
        """A list that has to be there."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(type(one) is kind for one in value):
            raise GgufError(
                f"expected {key} in the metadata, a list of {kind.__name__}, {_found(value)}"
            )
        return value


def _found(value: Any) -> str:
    return "found none" if value is None else f"found {str(value)[:80]}"


class _WithinFile(GGUFReader):
    """Refuses to read after the end of the file.

    The reader itself gets nothing from there and goes on, as often as a broken count tells it to.
    """

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data):,} and tells of {end:,}: cut short")
        return super()._get(offset, dtype, count, override_order)
