"""The grammar of conditions, and its error messages."""

from __future__ import annotations

from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from reviewmesh.query.where.errors import BadCondition, quoted

MAX_LENGTH = 16_000
"""Most characters of a condition."""
MAX_DEPTH = 32
"""Most nested parentheses: the functions that walk the tree are recursive."""

GRAMMAR = r"""
    ?any: all | all ("or"i all)+ -> any_of
    ?all: one | one ("and"i one)+ -> all_of
    ?one: test | "not"i test -> negation
    ?test: "(" any ")"
        | FIELD -> flag
        | FIELD OPERATOR value -> comparison
        | FIELD "in"i values -> one_of
        | FIELD "not"i "in"i values -> none_of
        | FIELD "is"i "null"i -> is_null
        | FIELD "is"i "not"i "null"i -> is_not_null
    values: "(" value ("," value)* ")"
    value: QUOTED | PLAIN | PLAIN AGO | TRUE | FALSE

    OPERATOR: "=" | "!=" | "<=" | ">=" | "<" | ">"
    TRUE: "true"i
    FALSE: "false"i
    AGO: "ago"i
    FIELD: /[a-z_][a-z0-9_]*(\.[a-z0-9_]*)*/i
    QUOTED: /"(\\.|[^"\\])*"/s | /'(\\.|[^'\\])*'/s
    // Numbers, versions, dates, times and the 7d of 7d ago: the kind of the field tells which.
    PLAIN: /[-+]?[0-9][0-9a-z.:+_-]*/i
    %ignore /\s+/
"""
PARSER = Lark(GRAMMAR, start="any", parser="lalr", lexer="basic")

VALUES = frozenset({"QUOTED", "PLAIN", "TRUE", "FALSE"})
IN_WORDS = {
    "FIELD": "a field",
    "OPERATOR": "one of = != < <= > >=",
    "LPAR": '"("',
    "RPAR": '")"',
    "COMMA": "a comma",
    "$END": "the end",
}


def parsed(text: str) -> Tree[Token]:
    """The parse tree. Raises BadCondition, also beyond MAX_LENGTH and MAX_DEPTH."""
    if len(text) > MAX_LENGTH:
        reason = f"expected a condition of at most {MAX_LENGTH:,} characters, got {len(text):,}"
        raise BadCondition(reason, text, MAX_LENGTH, MAX_LENGTH)
    # lark has no types for it.
    parser: Any = PARSER.parse_interactive(text)
    taken: list[Token] = []
    depth = 0
    try:
        for token in parser.lexer_thread.lex(parser.parser_state):
            depth += {"LPAR": 1, "RPAR": -1}.get(token.type, 0)
            if depth > MAX_DEPTH:
                reason = f"expected at most {MAX_DEPTH} nested parentheses"
                raise BadCondition(reason, text, *extent(token))
            parser.feed_token(token)
            taken.append(token)
        tree: Tree[Token] = parser.feed_eof()
    except UnexpectedCharacters as error:
        start = error.pos_in_stream or 0
        got, end = text[start], start + 1
        if got in "\"'":
            raise BadCondition(f"expected a closing {got}", text, start, end) from None
        reason = f"expected {_expected(_accepted_after(taken))}, got {quoted(got)}"
        raise BadCondition(reason + _meant(text, start), text, start, end) from None
    except UnexpectedToken as error:
        accepted = _accepted_after(taken)
        if error.token.type == "$END":
            reason = f"expected {_expected(accepted)}, got the end of the condition"
            raise BadCondition(reason, text, len(text), len(text)) from None
        start, end = extent(error.token)
        reason = _refused(error.token, accepted) + _meant(text, start)
        raise BadCondition(reason, text, start, end) from None
    return tree


def _meant(text: str, start: int) -> str:
    """What to write in place of an operator of other languages."""
    for operator, ours in (("==", "="), ("<>", "!=")):
        if text[max(0, start - 1) : start + 1] == operator:
            return f"; write {ours} in place of {operator}"
    return ""


def _accepted_after(tokens: list[Token]) -> set[str]:
    """Terminals that may follow these tokens.

    From a new parser: the one that failed has reduced already, and accepts fewer.
    """
    parser: Any = PARSER.parse_interactive("")
    for token in tokens:
        parser.feed_token(token)
    accepted: set[str] = parser.accepts()
    return accepted


def extent(token: Token) -> tuple[int, int]:
    """The start and end of a token in the condition."""
    if token.start_pos is None or token.end_pos is None:
        raise AssertionError("expected a token of the lexer to have a position")
    return token.start_pos, token.end_pos


def _refused(token: Token, accepted: set[str]) -> str:
    reason = f"expected {_expected(accepted)}, got {quoted(token)}"
    if accepted >= VALUES and token.type == "FIELD":
        return f'{reason}; write text in quotes: "{quoted(token)}"'
    if accepted >= VALUES and token.type == "NULL":
        return f"{reason}; write is null or is not null"
    return reason


def _expected(accepted: set[str]) -> str:
    words = ["a value"] if accepted >= VALUES else []
    rest = accepted - VALUES if words else accepted
    # In the order of IN_WORDS, the end last.
    words += [word for name, word in IN_WORDS.items() if name in rest and name != "$END"]
    words += sorted(f'"{name.lower()}"' for name in rest - IN_WORDS.keys())
    words += [IN_WORDS["$END"]] if "$END" in rest else []
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
