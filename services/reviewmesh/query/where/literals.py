"""Values of a condition, parsed by the kind of their field."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from packaging.version import Version

from reviewmesh.clock import plausible_ms
from reviewmesh.query.values import EPOCH
from reviewmesh.query.where.errors import BadCondition, quoted
from reviewmesh.query.where.expression import DAY, TimeSpan, Value
from reviewmesh.query.where.fields import Field, FieldKind

STATUSES = ("OK", "TIMEOUT", "FAILED", "FALLBACK")
"""The statuses of TaskOutcome in the schema."""
MAX_VERSION_LENGTH = 100
"""Longer text is not parsed as a version; versions of packages have at most 40 characters."""
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?", re.I)
ESCAPED = re.compile(r"\\(.)", re.S)
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
CLOCK = re.compile(rf"{DATE.pattern}[T ][0-9]{{2}}:[0-9]{{2}}[0-9:.,+Z-]*", re.I | re.A)
AGO = re.compile(r"([0-9]{1,9})([smhdw])\s+ago", re.I | re.A)
MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@dataclass(frozen=True)
class WrittenValue:
    """A value and its position in the whole `condition`."""

    condition: str
    start: int
    end: int

    @property
    def source(self) -> str:
        return self.condition[self.start : self.end]

    @property
    def text(self) -> str | None:
        """The quoted text, with backslash escapes resolved; None without quotes."""
        return ESCAPED.sub(r"\1", self.source[1:-1]) if self.source[0] in "\"'" else None

    def refuse(self, reason: str) -> NoReturn:
        raise BadCondition(f"{reason}, got {quoted(self.source)}", self.condition, *self.extent)

    @property
    def extent(self) -> tuple[int, int]:
        return self.start, self.end


def value_of(field: Field, written: WrittenValue, ordered: bool, now_ms: int) -> Value:
    """`ordered`: the operator is one of < <= > >=. Raises BadCondition."""
    match field.kind:
        case FieldKind.NUMBER:
            return _number(field, written)
        case FieldKind.VERSION:
            return _version(field, written, ordered)
        case FieldKind.TIME:
            return _time(field, written, now_ms)
        case FieldKind.FLAG:
            if written.source.lower() not in ("true", "false"):
                written.refuse(f"{field.name} is {field.kind.value}: expected true or false")
            return written.source.lower() == "true"
        case FieldKind.STATUS:
            return _status(field, written)
        case FieldKind.TEXT | FieldKind.LANGUAGE:
            return _text(field, written)


def version_of(text: str) -> Version | None:
    """By PEP 440; None if it is not a version."""
    if len(text) > MAX_VERSION_LENGTH:
        return None
    try:
        return Version(text)
    except ValueError:
        return None


def _number(field: Field, written: WrittenValue) -> int | float:
    if NUMBER.fullmatch(written.source) is None:
        written.refuse(f"{field.name} is a number: expected one such as 4 or 4.5, without quotes")
    try:
        return int(written.source)
    except ValueError:
        # It has a decimal point, an exponent, or thousands of digits.
        number = float(written.source)
    if not math.isfinite(number):
        written.refuse(f"{field.name} is a number: expected one of a magnitude below 1e308")
    return number


def _version(field: Field, written: WrittenValue, ordered: bool) -> str:
    text = written.source if written.text is None else written.text
    if written.source.lower() in ("true", "false") or AGO.fullmatch(written.source):
        written.refuse(f'{field.name} is a version: expected one such as 3 or "1.10"')
    if ordered and version_of(text) is None:
        written.refuse(
            f"{field.name} is a version: expected one of PEP 440, which has an order, such "
            'as 3 or "1.10rc1"'
        )
    return text


def _status(field: Field, written: WrittenValue) -> str:
    if written.text not in STATUSES:
        near = difflib.get_close_matches((written.text or written.source).upper(), STATUSES, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        names = ", ".join(f'"{name}"' for name in STATUSES)
        written.refuse(f"{field.name} is {field.kind.value}: expected one of {names}{meant}")
    return written.text


def _text(field: Field, written: WrittenValue) -> str:
    if written.text is None:
        written.refuse(f'{field.name} is {field.kind.value}: expected it in quotes, such as "en"')
    return written.text


def _time(field: Field, written: WrittenValue, now_ms: int) -> TimeSpan:
    text = written.source if written.text is None else written.text
    span = span_of(text, now_ms)
    if span is None:
        written.refuse(
            f"{field.name} is a time: expected one such as 2026-11-30, 2026-11-30T08:00:00Z or "
            "7d ago (s, m, h, d, w)"
        )
    if not plausible_ms(span.start_ms):
        written.refuse(f"{field.name} is a time: expected one from 1970 to 9999")
    return span


def span_of(text: str, now_ms: int) -> TimeSpan | None:
    """The day or millisecond that `text` names; None if it is not a time."""
    try:
        return _span(text, now_ms)
    except ValueError:
        return None


def _span(text: str, now_ms: int) -> TimeSpan | None:
    """None, or ValueError, if it is not a time."""
    if match := AGO.fullmatch(text):
        start = now_ms - int(match[1]) * MILLISECONDS[match[2].lower()]
        return TimeSpan(start, start + 1)
    whole_day = DATE.fullmatch(text) is not None
    if not whole_day and CLOCK.fullmatch(text) is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    start = (moment - EPOCH) // DAY.resolution // 1_000
    return TimeSpan(start, start + (MILLISECONDS["d"] if whole_day else 1))
