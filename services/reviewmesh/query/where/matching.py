"""From an expression to the function that decides for a record.

Three-valued, as in SQL: what is compared with null is unknown (None), and so is its negation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from reviewmesh.query.where.expression import (
    And,
    Comparison,
    Expression,
    IsNull,
    Not,
    OneOf,
    Or,
    Span,
    Value,
)
from reviewmesh.query.where.fields import Field, Kind
from reviewmesh.query.where.literals import LONGEST_VERSION, version_of

Record = Mapping[str, Any]
Decision = Callable[[Record], bool | None]
Test = Callable[[Any], bool | None]
"""Of a value that is not null."""

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
KEPT_VERSIONS = 10_000


def matcher(expression: Expression) -> Callable[[Record], bool]:
    """Whether a decoded EnrichedReview is meant: what is unknown is not."""
    decide = _decision(expression)
    return lambda record: decide(record) is True


def _decision(expression: Expression) -> Decision:
    match expression:
        case And(parts):
            return _combined(parts, decisive=False)
        case Or(parts):
            return _combined(parts, decisive=True)
        case Not(part):
            return _negated(_decision(part))
        case IsNull(field):
            value_of = _getter(field)
            return lambda record: value_of(record) is None
        case Comparison(field, sign, value):
            return _of_known(field, _test(field.kind, sign, value))
        case OneOf(field, values):
            return _of_known(field, _test_of_any(field.kind, values))


def _combined(parts: tuple[Expression, ...], decisive: bool) -> Decision:
    """One decisive part decides; else an unknown one leaves all of it unknown."""
    decisions = tuple(map(_decision, parts))

    def decide(record: Record) -> bool | None:
        result: bool | None = not decisive
        for decision in decisions:
            decided = decision(record)
            if decided is decisive:
                return decisive
            if decided is None:
                result = None
        return result

    return decide


def _negated(decision: Decision) -> Decision:
    def decide(record: Record) -> bool | None:
        decided = decision(record)
        return None if decided is None else not decided

    return decide


def _of_known(field: Field, test: Test) -> Decision:
    value_of = _getter(field)

    def decide(record: Record) -> bool | None:
        value = value_of(record)
        return None if value is None else test(value)

    return decide


def _getter(field: Field) -> Callable[[Record], Any]:
    """The field's value; null where what it is in is null or is not there."""
    get = _getter_at(field.path)
    if field.kind is not Kind.NUMBER:
        return get

    def get_number(record: Record) -> Any:
        value = get(record)
        # A double that is not a number has no order either.
        return value if value == value else None

    return get_number


def _getter_at(path: tuple[str, ...]) -> Callable[[Record], Any]:
    *containers, name = path
    if not containers:
        return operator.itemgetter(name)

    def get_within(record: Record) -> Any:
        found: Any = record
        for container in containers:
            found = found.get(container)
            if found is None:
                return None
        return found[name]

    return get_within


def _test(kind: Kind, sign: str, value: Value) -> Test:
    if sign == "!=":
        equal = _test(kind, "=", value)
        return lambda found: not equal(found)
    match value:
        case Span(start, end):
            return _test_of_time(sign, start, end)
        case str() if kind is Kind.VERSION:
            return _test_of_version(sign, value)
        case str() if kind is Kind.LANGUAGE:
            return _test_of_language(value)
    if sign == "=":
        return lambda found: bool(found == value)
    compare = ORDERS[sign]
    return lambda found: compare(found, value)


def _test_of_any(kind: Kind, values: tuple[Value, ...]) -> Test:
    if kind in (Kind.VERSION, Kind.LANGUAGE, Kind.TIME):
        tests = tuple(_test(kind, "=", value) for value in values)
        return lambda found: any(test(found) for test in tests)
    chosen = frozenset(values)
    return lambda found: found in chosen


def _test_of_time(sign: str, start: int, end: int) -> Test:
    """Of milliseconds since the epoch, with all from `start` until before `end`."""
    match sign:
        case "=":
            return lambda found: start <= found < end
        case "<":
            return lambda found: bool(found < start)
        case "<=":
            return lambda found: bool(found < end)
        case ">":
            return lambda found: bool(found >= end)
    return lambda found: bool(found >= start)


def _test_of_version(sign: str, written: str) -> Test:
    """By PEP 440; what is no version equals itself alone, and has no order."""
    version = version_of(written)

    def compared(found: str) -> bool | None:
        found_version = version_of(found)
        if found_version is None or version is None:
            return found == written if sign == "=" else None
        if sign == "=":
            return found_version == version
        return ORDERS[sign](found_version, version)

    # A topic holds few versions and many records.
    remembered = lru_cache(KEPT_VERSIONS)(compared)
    return lambda found: (remembered if len(found) <= LONGEST_VERSION else compared)(found)


def _test_of_language(written: str) -> Test:
    """Basic filtering of RFC 4647: the range itself and what is more special; * is every tag."""
    if written == "*":
        return lambda found: True
    whole = written.lower()
    beginning = f"{whole}-"

    def test(found: str) -> bool:
        lowered = found.lower()
        return lowered == whole or lowered.startswith(beginning)

    return test
