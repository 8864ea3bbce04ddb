"""Prints untrusted text on a terminal and in JSON lines.

Ids, texts, headers and messages come from any producer. Their characters must not control the
terminal, change the direction of text or begin a line, and are never interpreted as markup.
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

PIPE_WIDTH = 10_000
SHOWN_TEXT = 72


class PlainConsole(Console):
    """Prints text verbatim: no markup, no emoji codes, no control characters."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            # A file or a pipe has no width, so nothing may be cut.
            self.width = PIPE_WIDTH

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escapes every segment, those of tables too."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain_lines(text), style, control)


out = PlainConsole()
err = PlainConsole(stderr=True)


def shortened(text: str, limit: int = SHOWN_TEXT) -> str:
    """The beginning of a text on one line; white space and control characters become one space."""
    # Enough to fill the limit, so that texts of megabytes cost little.
    line = " ".join(UNSAFE.sub(" ", text[: limit * 20]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that is safe on a terminal, and equal when parsed."""
    readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not readable, indent=indent, allow_nan=False)
    # json itself escapes C0; line breaks come only from the indent.
    return UNSAFE_ON_A_LINE.sub(_json_escaped, text)


def _json_escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
