"""Reads an export as other people do: by its manifest, or every file that is there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

VIEWS = ("full", "flat")


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        # Without the column that pyarrow makes of the folder's name.
        found: list[dict[str, Any]] = (
            pq.ParquetFile(path).read().to_pylist(maps_as_pydicts="strict")
        )
        return found
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def by_manifest(folder: Path, view: str = "full") -> list[dict[str, Any]]:
    """What the manifest names."""
    return [row for file in manifest(folder)["files"] for row in rows(folder / file[view])]


def there(folder: Path, view: str = "full") -> list[dict[str, Any]]:
    """Every file of the view, whatever the manifest says."""
    paths = sorted(path for path in (folder / view).rglob("*") if path.is_file())
    return [row for path in paths for row in rows(path)]
