"""What is wrong with a condition, shown where it is wrong."""

from __future__ import annotations

SHOWN = 72
"""Characters of a condition that are shown around what is wrong with it."""
LONGEST_QUOTE = 40


class BadCondition(ValueError):
    """A condition that is refused; the text has three lines: the reason, the place, a caret."""

    def __init__(self, reason: str, text: str, start: int, end: int) -> None:
        """`start` to `end` is what is wrong, in characters of the whole condition `text`."""
        self.reason = reason
        self.start = start
        shown, column = _excerpt(text, start)
        carets = "^" * max(1, min(end - start, len(shown) - column))
        super().__init__(f"{reason}\n  {shown}\n  {' ' * column}{carets}")


def quoted(text: str) -> str:
    """What somebody wrote, short and without what a terminal would obey."""
    shown = _plain(text)
    return shown if len(shown) <= LONGEST_QUOTE else f"{shown[: LONGEST_QUOTE - 1]}…"


def _excerpt(text: str, start: int) -> tuple[str, int]:
    """At most SHOWN characters around `start`, and its column in them."""
    first = max(0, min(start - SHOWN // 2, len(text) - SHOWN))
    return _plain(text[first : first + SHOWN]), start - first


def _plain(text: str) -> str:
    """One printed character for each: the caret stays below what it marks."""
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "\ufffd"
        for character in text
    )
