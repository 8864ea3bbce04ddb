"""Why an export ends early. What it has written so far is kept, and the next run goes on there."""

from __future__ import annotations


class ExportEnds(Exception):
    """The message says what was expected, what came and what to do."""


class AnotherExport(ExportEnds):
    """Another run has taken this folder over."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"another export of {folder} has begun and goes on from here; this one ends. Run one "
            "at a time"
        )
