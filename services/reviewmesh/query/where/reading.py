"""Parses and checks a condition."""

from __future__ import annotations

from typing import NoReturn

from lark import Token, Tree

from reviewmesh.query.where.errors import BadCondition, quoted
from reviewmesh.query.where.expression import (
    And,
    Comparison,
    Expression,
    IsNull,
    Not,
    OneOf,
    Or,
    Value,
)
from reviewmesh.query.where.fields import ORDERED, Field, FieldKind, fields_of, help_with
from reviewmesh.query.where.grammar import extent, parsed
from reviewmesh.query.where.literals import WrittenValue, value_of

EQUALITY = ("=", "!=")


def read_condition(text: str, task: str, now_ms: int) -> Expression:
    """The condition `text` on enriched records; fields without a task are those of `task`.

    Relative times count back from `now_ms`, in milliseconds since the epoch. Raises BadCondition,
    and ValueError for an unknown task.
    """
    fields_of(task)
    return _Reader(text, task, now_ms).expression(parsed(text))


class _Reader:
    def __init__(self, text: str, task: str, now_ms: int) -> None:
        self._text = text
        self._task = task
        self._now_ms = now_ms

    def expression(self, tree: Tree[Token]) -> Expression:
        if tree.data in ("any_of", "all_of", "negation"):
            parts = tuple(self.expression(_tree(child)) for child in tree.children)
            if tree.data == "negation":
                return Not(parts[0])
            return Or(parts) if tree.data == "any_of" else And(parts)
        name, *rest = tree.children
        return self._test(str(tree.data), _token(name), rest)

    def _test(self, rule: str, name: Token, rest: list[Token | Tree[Token]]) -> Expression:
        field = self._field(name)
        match rule:
            case "is_null":
                return IsNull(field)
            case "is_not_null":
                return Not(IsNull(field))
            case "flag":
                if field.kind is not FieldKind.FLAG:
                    self._refuse(
                        f"{field.name} is {field.kind.value}: expected a comparison, such "
                        f"as {field.name} is not null",
                        name,
                    )
                return Comparison(field, "=", True)
            case "comparison":
                operator = _token(rest[0])
                if operator not in EQUALITY and field.kind not in ORDERED:
                    self._refuse(
                        f"{field.name} is {field.kind.value}, which has no order: expected =, != "
                        f"or in, got {operator}",
                        operator,
                    )
                ordered = operator not in EQUALITY
                return Comparison(field, str(operator), self._value(field, rest[1], ordered))
        values = [self._value(field, child, ordered=False) for child in _tree(rest[0]).children]
        chosen = OneOf(field, tuple(values))
        return Not(chosen) if rule == "none_of" else chosen

    def _field(self, name: Token) -> Field:
        field = fields_of(self._task).get(name)
        if field is None:
            help_ = help_with(name, self._task)
            self._refuse(f"{quoted(name)} is not a field: {help_}", name)
        return field

    def _value(self, field: Field, node: Token | Tree[Token], ordered: bool) -> Value:
        tokens = [_token(child) for child in _tree(node).children]
        written = WrittenValue(self._text, extent(tokens[0])[0], extent(tokens[-1])[1])
        return value_of(field, written, ordered, self._now_ms)

    def _refuse(self, reason: str, token: Token) -> NoReturn:
        raise BadCondition(reason, self._text, *extent(token))


def _tree(node: Token | Tree[Token]) -> Tree[Token]:
    assert isinstance(node, Tree)
    return node


def _token(node: Token | Tree[Token]) -> Token:
    assert isinstance(node, Token)
    return node
