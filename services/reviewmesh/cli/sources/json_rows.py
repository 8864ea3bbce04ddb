"""Rows of JSON: one object a line, or objects one after another, in an array or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from reviewmesh.cli.sources import rows
from reviewmesh.cli.sources.errors import FileBroken, NoReview, shown
from reviewmesh.cli.sources.rows import Row, beginning_of, bounded_lines, decoded
from reviewmesh.cli.sources.text import CHUNK, read_some

STRING_TURNS = re.compile(rb'["\\]')
TURNS = re.compile(rb'["{}\[\]]')
BETWEEN = b" \t\r\n,"
WORD_ENDS = re.compile(rb"[\s,\]\[{}\"]")
OPENING, CLOSING = b"{[", b"}]"
FIRST_NAME = re.compile(rb'\{\s*"([^"\\]{1,200})"\s*:')


def line_rows(file: BinaryIO, encoding: str, skip: int, path: Sequence[str]) -> Iterator[Row]:
    """One value a line; blank lines are none. With a path, the reviews within each."""
    if path:
        yield from _numbered(_line_values(file, encoding), skip, path)
        return
    for number, line in enumerate(bounded_lines(file), 1):
        if number > skip and not line.isspace():
            yield _row(number, f"line {number}", line, encoding)


def document_rows(file: BinaryIO, encoding: str, skip: int, path: Sequence[str]) -> Iterator[Row]:
    """The elements of arrays, and what lies outside of arrays; with a path, the reviews within."""
    if path:
        yield from _numbered(_document_values(file, encoding), skip, path)
        return
    for number, value in enumerate(documents(file), 1):
        if number > skip:
            yield _row(number, f"item {number}", value, encoding)


def documents(file: BinaryIO) -> Iterator[bytes]:
    """Each element of a top-level array and each other top-level value.

    What is longer than a row may be is cut. One that lacks a quote or a bracket ends where the next
    begins, as far as that can be told. Raises FileBroken where the file ends within one.
    """
    splitter = _Splitter()
    while chunk := read_some(file, CHUNK):
        yield from splitter.take(chunk)
    yield from splitter.end()


def parsed(text: str) -> dict[str, Any]:
    """The object that the text holds. Raises NoReview."""
    content = _json_of(text)
    if not isinstance(content, dict):
        raise NoReview(f"expected a JSON object, got {type(content).__name__}")
    return content


def _row(number: int, where: str, raw: bytes, encoding: str) -> Row:
    try:
        return Row(number, where, content=parsed(decoded(raw, encoding)))
    except NoReview as problem:
        return Row(number, where, problem=problem, raw=beginning_of(raw))


def _line_values(file: BinaryIO, encoding: str) -> Iterator[Row]:
    for number, line in enumerate(bounded_lines(file), 1):
        if not line.isspace():
            yield _row(number, f"line {number}", line, encoding)


def _document_values(file: BinaryIO, encoding: str) -> Iterator[Row]:
    for number, value in enumerate(documents(file), 1):
        yield _row(number, f"item {number}", value, encoding)


def _numbered(values: Iterator[Row], skip: int, path: Sequence[str]) -> Iterator[Row]:
    """The reviews under this path of each value, counted over all of them."""
    number = 0
    for value in values:
        for row in _within(value, path):
            number += 1
            if number > skip:
                row.number, row.where = number, f"item {number}"
                yield row


def _within(value: Row, path: Sequence[str]) -> Iterator[Row]:
    found: Any = value.content
    for name in path:
        # A review by itself, as somebody took it out already.
        if not isinstance(found, dict) or name not in found:
            yield value
            return
        found = found[name]
    for item in found if isinstance(found, list) else [found]:
        row = Row(0, "", content=item if isinstance(item, dict) else None)
        if row.content is None:
            row.problem = NoReview(f"expected a JSON object, got {type(item).__name__}")
        yield row


def _json_of(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except NoReview:
        raise
    except RecursionError:
        raise NoReview("expected a review as JSON, got one that is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NoReview(f"expected a review as JSON, got {shown(text.strip())} ({error})") from error
    # Python rejects very long numbers, which JSON allows.
    except ValueError:
        raise NoReview("expected a review as JSON, got a number of thousands of digits") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _value in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NoReview(
            f"{twice!r:.60}: expected once in an object, got it twice",
            kind="expected each name once in an object",
        )
    return content


def _no_number(word: str) -> Any:
    raise NoReview(f"expected JSON, which does not allow {word}")


def next_beginning(value: bytes) -> int:
    """Where within a broken value the next one begins; 0 where nothing says so.

    It has the same first name, comes behind a bracket or a comma, and is no deeper than this one.
    """
    first = FIRST_NAME.match(value)
    if first is None:
        return 0
    name = re.escape(first[1])
    again = re.compile(rb'(\}\s*+,?|,)\s*+(?=\{\s*+"' + name + rb'"\s*+:)')
    depth, counted = 0, 0
    for found in again.finditer(value):
        between = value[counted : found.end()]
        counted = found.end()
        depth += sum(map(between.count, (b"{", b"["))) - sum(map(between.count, (b"}", b"]")))
        # Behind a comma within an object there must be a name: its bracket is missing.
        if depth == 0 or (depth == 1 and b"," in found[1]):
            return found.end()
    return 0


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


class _Splitter:
    """Finds where values begin and end by their brackets and quotes, without parsing them."""

    def __init__(self) -> None:
        self._value = bytearray()
        self._arrays = 0
        """Top-level arrays that are open: one or none in JSON that is right."""
        self._is_overlong = False
        self._between_values()

    def _between_values(self) -> None:
        self._value.clear()
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._in_word = False
        self._is_overlong = False

    def take(self, chunk: bytes) -> Iterator[bytes]:
        waiting = [(chunk, 0)]
        while waiting:
            chunk, at = waiting.pop()
            while at < len(chunk):
                if self._in_string:
                    at = self._string(chunk, at)
                elif self._depth:
                    at = self._within(chunk, at)
                elif self._in_word:
                    at = self._word(chunk, at)
                else:
                    at = self._between(chunk, at)
                is_whole = not (self._in_string or self._depth or self._in_word)
                if not is_whole and (self._is_overlong or len(self._value) <= rows.MAX_ROW_BYTES):
                    continue
                value = bytes(self._value)
                if not value:
                    continue
                # What was dropped of a longer one cannot be read again.
                cut = 0 if self._is_overlong else next_beginning(value)
                if cut and not (is_whole and _is_json(value)):
                    yield value[:cut]
                    self._between_values()
                    waiting += [(chunk, at), (value, cut)]
                    break
                if is_whole:
                    yield value
                    self._between_values()
                else:
                    self._is_overlong = True

    def end(self) -> Iterator[bytes]:
        while self._value:
            value, cut = bytes(self._value), 0
            if not self._is_overlong and not _is_json(value):
                cut = next_beginning(value)
            if not cut:
                yield value
                break
            yield value[:cut]
            self._between_values()
            yield from self.take(value[cut:])
        if self._in_string or self._depth or self._arrays:
            raise FileBroken("the JSON ends before it is closed: the file may have been cut")

    def _keep(self, part: bytes) -> None:
        if not self._is_overlong:
            self._value += part

    def _string(self, chunk: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(chunk[at : at + 1])
            return at + 1
        turn = STRING_TURNS.search(chunk, at)
        if turn is None:
            self._keep(chunk[at:])
            return len(chunk)
        self._keep(chunk[at : turn.end()])
        if turn[0] == b'"':
            self._in_string = False
        else:
            self._escaped = True
        return turn.end()

    def _within(self, chunk: bytes, at: int) -> int:
        turn = TURNS.search(chunk, at)
        if turn is None:
            self._keep(chunk[at:])
            return len(chunk)
        self._keep(chunk[at : turn.end()])
        if turn[0] == b'"':
            self._in_string = True
        else:
            self._depth += 1 if turn[0] in OPENING else -1
        return turn.end()

    def _word(self, chunk: bytes, at: int) -> int:
        """A number, a name, or what is none of JSON."""
        end = WORD_ENDS.search(chunk, at)
        if end is None:
            self._keep(chunk[at:])
            return len(chunk)
        self._keep(chunk[at : end.start()])
        self._in_word = False
        return end.start()

    def _between(self, chunk: bytes, at: int) -> int:
        character = chunk[at : at + 1]
        if character in BETWEEN:
            pass
        elif character == b"[" and not self._arrays:
            self._arrays += 1
        elif character == b"]" and self._arrays:
            self._arrays -= 1
        else:
            self._keep(character)
            if character == b'"':
                self._in_string = True
            elif character in OPENING:
                self._depth = 1
            # A bracket that closes nothing is a value by itself, which is refused.
            elif character not in CLOSING:
                self._in_word = True
        return at + 1
