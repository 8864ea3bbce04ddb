"""Labelled rows as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def read_rows(file: Path) -> list[Row]:
    if not file.is_file():
        raise FileNotFoundError(f"expected labelled rows in {file}, found no such file")
    return parse_rows(file.read_text(encoding="utf-8"))


def parse_rows(lines: str) -> list[Row]:
    # Not splitlines(): it would cut at separators that stand inside a text.
    return [json.loads(line) for line in lines.split("\n") if line.strip()]
