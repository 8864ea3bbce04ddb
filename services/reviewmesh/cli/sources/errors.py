"""What is wrong with a row, or with a whole file."""

from __future__ import annotations

from typing import Any

SHOWN = 60


class NoReview(ValueError):
    """A row that is no valid review.

    `kind` is the message without what this row holds: many rows may be refused for the same.
    """

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = message.partition(", got")[0] if kind is None else kind


class FileRefused(Exception):
    """A file that is not read at all: what it is, what was expected, what to do."""


class FileBroken(Exception):
    """A file that cannot be read further: the rows before were good."""


def shown(value: Any) -> str:
    """The beginning of a value, for messages; Python refuses to print very long numbers."""
    try:
        text = repr(value[:100] if isinstance(value, str) else value)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
