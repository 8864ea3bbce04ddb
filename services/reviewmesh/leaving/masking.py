"""A text without its personal data, and the mapping of its code points to the original's.

Each piece of personal data is replaced by a placeholder that names its kind, such as `[EMAIL]`, so
that a model can still read the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reviewmesh.leaving.patterns import Found, find_patterns, merged

# A shorter part of a name is too often another word.
SHORTEST_NAME = 3
PERSON = "person"
"""The label of ner whose names are masked."""


@dataclass(frozen=True, slots=True)
class Masked:
    text: str
    """What may leave."""
    found: tuple[Found, ...]
    """What was masked, in code points of the original; in order, without overlaps."""
    starts: tuple[int, ...]
    """Where each placeholder starts in `text`."""

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """The span in the original of a span in `text`.

        A span that overlaps a placeholder covers everything that was masked there. None if it holds
        placeholders only: the model did not see what was there.
        """
        if not 0 <= start < end <= len(self.text) or self._only_placeholders(start, end):
            return None
        return self._start(start), self._end(end)

    def _only_placeholders(self, start: int, end: int) -> bool:
        at = start
        while at < end:
            number = self._placeholder_at(at)
            if number is None:
                if not self.text[at].isspace():
                    return False
                at += 1
            else:
                at = self.starts[number] + self._length(number)
        return True

    def _start(self, at: int) -> int:
        number = self._placeholder_at(at)
        return self._shifted(at) if number is None else self.found[number].start

    def _end(self, at: int) -> int:
        number = self._placeholder_at(at - 1)
        return self._shifted(at - 1) + 1 if number is None else self.found[number].end

    def _placeholder_at(self, at: int) -> int | None:
        """The number of the placeholder that this code point of `text` is part of."""
        number = bisect_right(self.starts, at) - 1
        inside = number >= 0 and at < self.starts[number] + self._length(number)
        return number if inside else None

    def _shifted(self, at: int) -> int:
        """Of a code point outside placeholders."""
        number = bisect_right(self.starts, at) - 1
        if number < 0:
            return at
        return at - (self.starts[number] + self._length(number)) + self.found[number].end

    def _length(self, number: int) -> int:
        return len(_placeholder(self.found[number]))


def mask(text: str, language: str, names: Iterable[tuple[int, int]] = ()) -> Masked:
    """Mask patterns, and names: at these spans and wherever else they occur in the text."""
    found = [*find_patterns(text, language), *_names(text, names)]
    return replaced(text, merged(found))


def replaced(text: str, found: Sequence[Found]) -> Masked:
    """`found` is in order and without overlaps."""
    parts: list[str] = []
    starts: list[int] = []
    at = length = 0
    for each in found:
        starts.append(length + each.start - at)
        parts += [text[at : each.start], _placeholder(each)]
        length = starts[-1] + len(parts[-1])
        at = each.end
    return Masked("".join([*parts, text[at:]]), tuple(found), tuple(starts))


def _placeholder(found: Found) -> str:
    return f"[{found.kind}]"


def _names(text: str, spans: Iterable[tuple[int, int]]) -> list[Found]:
    """Also parts of names: a text often repeats only a part of a full name."""
    spans = list(spans)
    words: set[str] = set()
    for start, end in spans:
        name = text[start:end]
        words |= {part for part in (name, *name.split()) if len(part) >= SHORTEST_NAME}
    found = [Found(start, end, "NAME") for start, end in spans]
    if words:
        longest_first = sorted(words, key=lambda word: (-len(word), word))
        anywhere = "|".join(re.escape(word) for word in longest_first)
        for match in re.finditer(rf"(?<!\w)(?:{anywhere})(?!\w)", text):
            found.append(Found(match.start(), match.end(), "NAME"))
    return found
