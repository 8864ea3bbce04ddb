"""Conditions against the plainest evaluation, and the laws of three-valued logic."""

from __future__ import annotations

import math
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.query.where.expression import (
    And,
    Comparison,
    Expression,
    IsNull,
    Not,
    OneOf,
    Or,
    TimeSpan,
)
from reviewmesh.query.where.fields import ORDERED, Field, FieldKind, fields_of
from reviewmesh.query.where.literals import STATUSES
from reviewmesh.query.where.matching import matcher
from reviewmesh.query.where.reading import read_condition
from tests.unit.query.conditions import DAY, NOW_MS, enriched, result

TASK = "topic"
FIELDS = fields_of(TASK)
ASKED = [
    FIELDS[name]
    for name in [
        "business_id",
        "language",
        "stars",
        "accepted_at",
        "created_at",
        "complete",
        "revision",
        "status",
        "enriched_at",
        "model_version",
        "attempts",
        "queue_ms",
        "route",
        "ner.status",
        "ner.model_version",
        "ner.prompt_version",
    ]
]
VERSIONS = ("1", "1.0", "1.9", "1.10", "2", "3", "latest", "2026-11-30")
LANGUAGES = ("da", "DA", "da-DK", "dan", "da-dk-x-a", "en", "en-GB")
TEXTS = ("b-1", "b-2", "primary", "fallback", "")
NUMBERS = (0, 1, 2, 3, 4.5, -1, math.inf)
# Around midnight, which a day starts and ends with.
TIMES = tuple(NOW_MS // DAY * DAY + offset for offset in (-DAY, -1, 0, 1, DAY - 1, DAY))
YES, UNKNOWN, NO = 1.0, 0.5, 0.0

# -- what is drawn -----------------------------------------------------------------------------


def or_null(values: Any) -> Any:
    return st.none() | st.sampled_from(values)


results = st.builds(
    lambda task, status, **given: result(task, status, **given),
    st.just(TASK),
    st.sampled_from(STATUSES),
    model_version=or_null(VERSIONS),
    prompt_version=or_null(VERSIONS),
    attempts=st.sampled_from((0, 1, 2)),
    queue_ms=or_null((*NUMBERS, math.nan)),
    route=or_null(TEXTS),
)
records = st.builds(
    enriched,
    st.dictionaries(st.sampled_from(("ner", "topic")), results),
    business_id=or_null(TEXTS),
    language=or_null(LANGUAGES),
    stars=or_null((*NUMBERS, math.nan)),
    accepted_at=or_null(TIMES),
    created_at=or_null(TIMES),
)
spans = st.sampled_from(TIMES).map(lambda start: TimeSpan(start, start + 1)) | st.sampled_from(
    [start for start in TIMES if start % DAY == 0]
).map(lambda start: TimeSpan(start, start + DAY))


def values_of(field: Field, ordered: bool) -> st.SearchStrategy[Any]:
    match field.kind:
        case FieldKind.NUMBER:
            return st.sampled_from([number for number in NUMBERS if math.isfinite(number)])
        case FieldKind.VERSION:
            chosen = VERSIONS if not ordered else [v for v in VERSIONS if version_key(v)]
            return st.sampled_from(chosen)
        case FieldKind.LANGUAGE:
            return st.sampled_from(LANGUAGES)
        case FieldKind.STATUS:
            return st.sampled_from(STATUSES)
        case FieldKind.FLAG:
            return st.booleans()
        case FieldKind.TIME:
            return spans
    return st.sampled_from(TEXTS)


@st.composite
def asked_of_a_field(draw: st.DrawFn) -> Expression:
    field = draw(st.sampled_from(ASKED))
    kind = draw(st.sampled_from(("comparison", "in", "null")))
    if kind == "null":
        return IsNull(field)
    if kind == "in":
        return OneOf(field, tuple(draw(st.lists(values_of(field, False), min_size=1, max_size=3))))
    signs = ["=", "!="] + (["<", "<=", ">", ">="] if field.kind in ORDERED else [])
    sign = draw(st.sampled_from(signs))
    return Comparison(field, sign, draw(values_of(field, sign not in ("=", "!="))))


expressions = st.recursive(
    asked_of_a_field(),
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, min_size=2, max_size=3).map(tuple).map(And)
        | st.lists(inner, min_size=2, max_size=3).map(tuple).map(Or)
    ),
    max_leaves=8,
)


# -- the plainest evaluation -------------------------------------------------------------------


def version_key(text: str) -> tuple[int, ...] | None:
    if re.fullmatch(r"\d+(\.\d+)*", text) is None:
        return None
    parts = [int(part) for part in text.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def smaller(kind: FieldKind, one: Any, other: Any) -> bool | None:
    """`other` as written; None where there is no order."""
    if kind is FieldKind.VERSION:
        keys = version_key(one), version_key(other)
        return None if None in keys else keys[0] < keys[1]  # type: ignore[operator]
    if kind is FieldKind.TIME:
        return bool(one < other.start_ms)
    return bool(one < other)


def equal(kind: FieldKind, one: Any, other: Any) -> bool:
    if kind is FieldKind.VERSION and version_key(one) and version_key(other):
        return version_key(one) == version_key(other)
    if kind is FieldKind.TIME:
        return one in range(other.start_ms, other.end_ms)
    if kind is FieldKind.LANGUAGE:
        asked = other.lower().split("-")
        return bool(one.lower().split("-")[: len(asked)] == asked)
    return bool(one == other)


def found_in(record: Any, field: Field) -> Any:
    for key in field.path:
        record = None if record is None else record.get(key)
    return None if isinstance(record, float) and math.isnan(record) else record


def truth(expression: Expression, record: Any) -> float:
    """Kleene's: and is the least, or the largest, not the mirror."""
    match expression:
        case And(parts):
            return min(truth(part, record) for part in parts)
        case Or(parts):
            return max(truth(part, record) for part in parts)
        case Not(part):
            return 1 - truth(part, record)
        case IsNull(field):
            return float(found_in(record, field) is None)
        case OneOf(field, values):
            return max(truth(Comparison(field, "=", value), record) for value in values)
    field, sign, value = expression.field, expression.operator, expression.value
    found = found_in(record, field)
    if found is None:
        return UNKNOWN
    if sign in ("=", "!="):
        return float(equal(field.kind, found, value) is (sign == "="))
    less = smaller(field.kind, found, value)
    if less is None:
        return UNKNOWN
    same = equal(field.kind, found, value)
    return float({"<": less, "<=": less or same, ">": not (less or same), ">=": not less}[sign])


def decided(text: str, record: Any) -> float:
    """By the condition and its negation, as somebody would write them."""
    if matcher(read_condition(text, TASK, NOW_MS))(record):
        return YES
    return NO if matcher(read_condition(f"not ({text})", TASK, NOW_MS))(record) else UNKNOWN


# -- the tests ---------------------------------------------------------------------------------


@given(expressions, records)
def test_a_condition_decides_as_the_plainest_evaluation(
    expression: Expression, record: dict[str, Any]
) -> None:
    assert matcher(expression)(record) is (truth(expression, record) == YES)
    assert matcher(Not(expression))(record) is (truth(expression, record) == NO)


@given(expressions)
def test_what_is_printed_reads_as_the_same(expression: Expression) -> None:
    assert read_condition(str(expression), TASK, NOW_MS) == expression
    # Times are absolute: whenever it is read again.
    assert read_condition(str(expression), TASK, 0) == expression


@given(st.text())
def test_any_text_is_printed_and_read_again(text: str) -> None:
    for name in ("model", "language", "model_version"):
        expression = Comparison(FIELDS[name], "=", text)
        assert read_condition(str(expression), TASK, NOW_MS) == expression


@given(st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_printed_and_read_again(number: float) -> None:
    expression = Comparison(FIELDS["stars"], "<", number)
    assert read_condition(str(expression), TASK, NOW_MS) == expression


@given(expressions, expressions, expressions, records)
def test_the_laws_hold_where_something_is_unknown(
    one: Expression, other: Expression, third: Expression, record: dict[str, Any]
) -> None:
    a, b, c = f"({one})", f"({other})", f"({third})"
    for left, right in (
        (f"not ({a} and {b})", f"(not {a}) or (not {b})"),
        (f"not ({a} or {b})", f"(not {a}) and (not {b})"),
        (f"not (not {a})", a),
        (f"{a} and {b}", f"{b} and {a}"),
        (f"{a} or {b}", f"{b} or {a}"),
        (f"{a} and ({b} or {c})", f"({a} and {b}) or ({a} and {c})"),
        (f"{a} or {b} and {c}", f"({a} or {b}) and ({a} or {c})"),
    ):
        assert decided(left, record) == decided(right, record), (left, right)
    # Not so with two values: of what is unknown neither it nor its negation is true.
    assert decided(f"{a} or not {a}", record) in (YES, UNKNOWN)
    assert (decided(f"{a} or not {a}", record) == UNKNOWN) is (decided(a, record) == UNKNOWN)


@given(st.sampled_from(ASKED), st.data(), records)
def test_null_is_neither_smaller_nor_equal_nor_unequal(
    field: Field, data: st.DataObject, record: dict[str, Any]
) -> None:
    signs = ["=", "!="] + (["<", "<=", ">", ">="] if field.kind in ORDERED else [])
    value = data.draw(values_of(field, ordered=True))
    if matcher(IsNull(field))(record):
        for sign in signs:
            assert decided(str(Comparison(field, sign, value)), record) == UNKNOWN
        assert decided(str(OneOf(field, (value,))), record) == UNKNOWN
    elif field.kind in (FieldKind.NUMBER, FieldKind.TIME):
        truths = [decided(str(Comparison(field, sign, value)), record) for sign in ("<", "=", ">")]
        assert sorted(truths) == [NO, NO, YES]
