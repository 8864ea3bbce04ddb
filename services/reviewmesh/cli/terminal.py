"""Text of strangers on a terminal, and in lines of JSON.

Ids, texts, headers and messages of records are anybody's. No character of theirs may steer a
terminal, turn a line round or begin another one, and none of it is ever read as markup.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from reviewmesh_kit.printable import UNSAFE, UNSAFE_ON_A_LINE, plain_lines

PIPE_WIDTH = 2_000
SHOWN_TEXT = 72


class PlainConsole(Console):
    """Prints what it is given as it is: no markup, no emoji codes, nothing that steers."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            # A file or a pipe has no width: nothing is to be cut there.
            self.width = PIPE_WIDTH

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Every part of what is printed passes here, those of tables too."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain_lines(text), style, control)


out = PlainConsole()
err = PlainConsole(stderr=True)


def shortened(text: str, limit: int = SHOWN_TEXT) -> str:
    """The beginning of a text on one line; white space and what would steer are one space."""
    # More than enough to fill the limit, of texts that are megabytes.
    line = " ".join(UNSAFE.sub(" ", text[: limit * 20]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as it may go to a terminal; it says the same to who parses it."""
    readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not readable, indent=indent, allow_nan=False)
    # json itself escapes C0; the line breaks of an indent are no part of a text.
    return UNSAFE_ON_A_LINE.sub(_json_escaped, text)


def _json_escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
