"""Text of strangers, made harmless for a terminal and for whoever reads there."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), what marks or changes the direction of text, what breaks lines
# or paragraphs, halves of surrogate pairs, and marks that Unicode advises against. Joiners stay:
# names and emoji need them.
STEERING = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff"
UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f{STEERING}]")
# A line break ends a line that the renderer made; a cell or a message has none left by then.
UNSAFE_ON_A_LINE = re.compile(f"[\x00-\x09\x0b-\x1f\x7f-\x9f{STEERING}]")


def plain(text: str) -> str:
    """One line of printable text, with control characters as escapes."""
    return UNSAFE.sub(escaped, text)


def plain_lines(text: str) -> str:
    """As `plain`, with the text's own line breaks."""
    return UNSAFE_ON_A_LINE.sub(escaped, text)


def escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(
        code, f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    )
