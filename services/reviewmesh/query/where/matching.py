"""Evaluates an expression on a record.

Three-valued logic, as in SQL: a comparison with null is unknown (None), and so is its negation.
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
    TimeSpan,
    Value,
)
from reviewmesh.query.where.fields import Field, FieldKind
from reviewmesh.query.where.literals import MAX_VERSION_LENGTH, version_of

EnrichedReview = Mapping[str, Any]
Matcher = Callable[[EnrichedReview], bool | None]
Test = Callable[[Any], bool | None]
"""The test of a value that is not null."""

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
CACHED_VERSIONS = 10_000


def matcher(expression: Expression) -> Callable[[EnrichedReview], bool]:
    """A function that tells whether a decoded EnrichedReview matches; unknown does not match."""
    decide = _decision(expression)
    return lambda record: decide(record) is True


def _decision(expression: Expression) -> Matcher:
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


def _combined(parts: tuple[Expression, ...], decisive: bool) -> Matcher:
    """`and` (decisive: False) or `or` (decisive: True) of parts.

    One decisive part decides; otherwise an unknown part makes the result unknown.
    """
    decisions = tuple(map(_decision, parts))

    def decide(record: EnrichedReview) -> bool | None:
        result: bool | None = not decisive
        for decision in decisions:
            decided = decision(record)
            if decided is decisive:
                return decisive
            if decided is None:
                result = None
        return result

    return decide


def _negated(decision: Matcher) -> Matcher:
    def decide(record: EnrichedReview) -> bool | None:
        decided = decision(record)
        return None if decided is None else not decided

    return decide


def _of_known(field: Field, test: Test) -> Matcher:
    value_of = _getter(field)

    def decide(record: EnrichedReview) -> bool | None:
        value = value_of(record)
        return None if value is None else test(value)

    return decide


def _getter(field: Field) -> Callable[[EnrichedReview], Any]:
    """The field's value; None if one of its containers is null or missing."""
    get = _getter_at(field.path)
    if field.kind is not FieldKind.NUMBER:
        return get

    def get_number(record: EnrichedReview) -> Any:
        value = get(record)
        # NaN has no order: it is unknown, as null is.
        return value if value == value else None

    return get_number


def _getter_at(path: tuple[str, ...]) -> Callable[[EnrichedReview], Any]:
    *containers, name = path
    if not containers:
        return operator.itemgetter(name)

    def get_within(record: EnrichedReview) -> Any:
        found: Any = record
        for container in containers:
            found = found.get(container)
            if found is None:
                return None
        return found[name]

    return get_within


def _test(kind: FieldKind, sign: str, value: Value) -> Test:
    if sign == "!=":
        equal = _test(kind, "=", value)
        return lambda found: not equal(found)
    match value:
        case TimeSpan(start, end):
            return _test_of_time(sign, start, end)
        case str() if kind is FieldKind.VERSION:
            return _test_of_version(sign, value)
        case str() if kind is FieldKind.LANGUAGE:
            return _test_of_language(value)
    if sign == "=":
        return lambda found: bool(found == value)
    compare = ORDERS[sign]
    return lambda found: compare(found, value)


def _test_of_any(kind: FieldKind, values: tuple[Value, ...]) -> Test:
    if kind in (FieldKind.VERSION, FieldKind.LANGUAGE, FieldKind.TIME):
        tests = tuple(_test(kind, "=", value) for value in values)
        return lambda found: any(test(found) for test in tests)
    chosen = frozenset(values)
    return lambda found: found in chosen


def _test_of_time(sign: str, start: int, end: int) -> Test:
    """Compares milliseconds since the epoch with the span from `start` until before `end`."""
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


def _test_of_version(sign: str, wanted: str) -> Test:
    """By PEP 440; text that is not a version equals only itself and has no order."""
    version = version_of(wanted)

    def compared(found: str) -> bool | None:
        found_version = version_of(found)
        if found_version is None or version is None:
            return found == wanted if sign == "=" else None
        if sign == "=":
            return found_version == version
        return ORDERS[sign](found_version, version)

    # A topic has few versions and many records.
    cached = lru_cache(CACHED_VERSIONS)(compared)
    return lambda found: (cached if len(found) <= MAX_VERSION_LENGTH else compared)(found)


def _test_of_language(wanted: str) -> Test:
    """Basic filtering of RFC 4647: a tag and its subtags (en: en-GB); * is every tag."""
    if wanted == "*":
        return lambda found: True
    lowered_range = wanted.lower()
    prefix = f"{lowered_range}-"

    def test(found: str) -> bool:
        lowered = found.lower()
        return lowered == lowered_range or lowered.startswith(prefix)

    return test
