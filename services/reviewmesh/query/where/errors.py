"""The error of a condition that cannot be used, with a caret at its place."""

from __future__ import annotations

EXCERPT_LENGTH = 72
"""Characters of a condition that the error shows."""
MAX_QUOTE_LENGTH = 40


class BadCondition(ValueError):
    """A condition that cannot be used. The message has three lines: reason, excerpt, caret."""

    def __init__(self, reason: str, text: str, start: int, end: int) -> None:
        """`text[start:end]` is the part that is wrong; `text` is the whole condition."""
        self.reason = reason
        self.start = start
        shown, column = _excerpt(text, start)
        carets = "^" * max(1, min(end - start, len(shown) - column))
        super().__init__(f"{reason}\n  {shown}\n  {' ' * column}{carets}")


def quoted(text: str) -> str:
    """Input for an error message: shortened, without control characters."""
    shown = _plain(text)
    if len(shown) <= MAX_QUOTE_LENGTH:
        return shown
    return f"{shown[: MAX_QUOTE_LENGTH - 1]}…"


def _excerpt(text: str, start: int) -> tuple[str, int]:
    """At most EXCERPT_LENGTH characters around `start`, and the column of `start` in them."""
    first = max(0, min(start - EXCERPT_LENGTH // 2, len(text) - EXCERPT_LENGTH))
    return _plain(text[first : first + EXCERPT_LENGTH]), start - first


def _plain(text: str) -> str:
    """One printable character for each, so that the caret stands at the right column."""
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "\ufffd"
        for character in text
    )
